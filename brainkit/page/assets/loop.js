// When the page draws, and in how much detail: while something moves, and at rest.

const INSET = { top: 84, bottom: 118, side: 30 };
const BETWEEN = 12; // px between two panes
const SPEED = 750; // ms of an animation
const GREYS = { light: [0.86, 0.74], dark: [0.62, 0.5] };
const find = (id) => document.getElementById(id);

/** Give the page its panes and the ways to draw them: `layout`, `request`, `rest`, `jump`, `go`. */
function addLoop(app) {
  const { brain, labels, renderer } = app;
  const stage = find("stage");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let tween = null;
  let waiting = 0;
  let settling = 0; // a timer; 0 at rest
  let last = 0;
  let moving = renderer.software; // the first picture at once, then the full detail
  let pace = 0; // ms from frame to frame
  app.panes = [];

  app.layout = () => {
    const [width, height] = [stage.clientWidth, stage.clientHeight];
    const shown = [app.map, app.beside].filter(Boolean);
    const narrow = width < 560; // the buttons are in two rows
    const inset = narrow ? { top: 104, bottom: 112, side: 14 } : INSET;
    const each = (width - BETWEEN * (shown.length - 1)) / shown.length;
    const frame = frameOf(app.view, brain, each, height, { ...inset, top: inset.top + (app.beside ? 16 : 0) });
    app.panes = shown.map((map, i) => ({
      frame, map, left: i * (each + BETWEEN), threshold: app.threshold, hideChance: app.hideChance, greys: GREYS[app.theme], ground: app.colours.ground, outlines: app.outlines,
      text: { labels: app.outlines ? labels : null, selected: app.selected, caption: app.beside ? map.title : "", captionTop: narrow ? 100 : 70, colours: app.colours },
    }));
    return [width, height];
  };

  /** A place across the stage as one across its pane. */
  app.inPane = (x) => x % (app.panes[0].frame.width + BETWEEN);

  function draw(moving) {
    const [width, height] = app.layout();
    if (!width || !height) return;
    const density = clamp(window.devicePixelRatio || 1, 1, 2);
    renderer.draw(app.panes, width, height, density, moving);
    // Where it is slow, a second picture of this size costs frames: names come back at rest.
    const hurried = moving && renderer.detail().share < 1;
    find("labels").style.visibility = hurried ? "hidden" : "visible";
    if (hurried) return;
    const context = labelContext(width, height, density);
    for (const pane of app.panes) drawLabels(context, brain, pane);
  }

  function labelContext(width, height, density) {
    const canvas = find("labels");
    sizeIfNew(canvas, Math.round(width * density), Math.round(height * density));
    const context = canvas.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  function tick(now) {
    waiting = 0;
    if (!moving && !tween) {
      last = 0;
      draw(false);
      return settle();
    }
    moving = false;
    if (last) {
      pace = now - last;
      renderer.tell(pace);
    }
    last = now;
    if (tween) {
      const share = clamp((now - tween.start) / SPEED, 0, 1);
      app.view = between(tween.from, tween.to, smooth(share));
      if (share === 1) tween = null;
      refreshView(app, find);
    }
    draw(true);
    if (tween) app.request();
    else settle(true);
  }

  /** Draw again, in full detail unless something moves. */
  app.request = () => {
    clearTimeout(settling);
    waiting ||= requestAnimationFrame(tick);
  };

  /** Resolves once nothing moves and the full detail is drawn. */
  app.rest = async () => {
    while (waiting || tween || settling) await new Promise((done) => setTimeout(done, 20));
  };

  /** Once nothing moves any more: full detail, and the address of the view. */
  function settle(moved) {
    clearTimeout(settling);
    settling = setTimeout(() => {
      settling = 0;
      last = 0;
      if (moved) draw(false);
      try {
        history.replaceState(null, "", hashOf(app));
      } catch { /* a page inside another one has no address of its own */ }
    }, clamp(4 * pace, 140, 1200)); // not between two frames of a slow movement
  }

  /** The view that an animation leads to, or the one that is. */
  app.target = () => (tween ? tween.to : app.view);
  app.isMoving = () => Boolean(waiting || tween);

  /** Change the view at once. */
  app.jump = (change) => {
    tween = null;
    app.view = { ...app.view, ...change };
    refreshView(app, find);
    moving = true;
    app.request();
  };

  /** Change the view smoothly. */
  app.go = (change) => {
    const to = { ...app.target(), ...change };
    if (calm.matches) return app.jump(to);
    tween = { from: app.view, to, start: performance.now() };
    app.request();
  };
}
