// The page: its state, and what changes it.

const ZOOM = [0.3, 40];
const [NEAR_STEP, NEAR_TURNS] = [10, 24]; // pixels between the rings around the middle that are searched, and places on each
const root = document.documentElement;

function startApp(content, read) {
  const brain = makeBrain(content, read);
  const outlined = brain.hemispheres.map((hemisphere) => regionLines(brain, hemisphere));
  const maps = openMaps(content, read, brain);
  const renderer = makeRenderer(find("cortex"), brain, outlined.map(({ lines }) => lines), content.opacity);
  const picker = makePicker(renderer, brain);
  const [overlay, stage] = [find("overlay"), find("stage")];
  const labels = outlined.flatMap((each) => each.labels).sort((a, b) => b.size - a.size);
  const app = {
    content, brain, maps, renderer, labels, map: maps[0], beside: null, selected: -1, threshold: null, hideChance: false, outlines: true,
    facts: content.facts.map(({ label, values }) => ({ label, numbers: readNumbers(read, values) })),
    flattens: brain.shapes.includes("flat"), view: startView(), theme: "light", colours: {},
  };
  let hovered = null;
  let used = false;

  addLoop(app);

  // -- the view -----------------------------------------------------------------------------------------------------

  app.goSide = (side) => {
    if (side === "flat") app.go({ shape: 2, sphere: 0, zoom: 1, pan: [0, 0] });
    else app.go({ ...sideView(side), shape: Math.min(app.target().shape, 1) });
  };

  app.reset = () => app.go(startView());

  app.drag = (x, y) => {
    if (flatness(app.view) > 0.5) return app.move(x, y);
    const angle = 0.0075;
    const turned = times(times(aroundAxis(1, 0, 0, y * angle), aroundAxis(0, 1, 0, x * angle)), app.view.turn);
    app.jump({ turn: unit(turned) });
  };

  app.move = (x, y) => {
    const smaller = Math.min(app.panes[0].frame.width, app.panes[0].frame.height);
    app.jump({ pan: [app.view.pan[0] + x / smaller, app.view.pan[1] - y / smaller] });
  };

  /** Zoom; the place at `at` on the stage stays where it is. */
  app.zoom = (factor, at) => {
    const { frame } = app.panes[0];
    const zoom = clamp(app.view.zoom * factor, ...ZOOM);
    const ratio = zoom / app.view.zoom;
    const smaller = Math.min(frame.width, frame.height);
    const centre = [frame.width / 2, frame.height / 2 - frame.shift[1] + app.view.pan[1] * smaller];
    const point = at ? [app.inPane(at[0]) - centre[0], centre[1] - at[1]] : [0, 0];
    const pan = [0, 1].map((i) => app.view.pan[i] + ((point[i] / smaller - app.view.pan[i]) * (1 - ratio)));
    app.jump({ zoom, pan });
  };

  /** Turn a vertex to the front, and pick it. */
  app.lookAt = (id) => {
    const view = { ...app.target(), pan: [0, 0], zoom: Math.max(app.view.zoom, 1) };
    app.select(id);
    const hemisphere = hemisphereOf(brain, id);
    if (flatness(view) > 0.5 && !hemisphere.vertexOnFlat[id - hemisphere.first]) Object.assign(view, { shape: 1 });
    const flat = flatness(view) > 0.5;
    if (!flat) {
      if (Math.abs(view.open) > 45) view.open = 0;
      const level = frameOf({ ...view, turn: [0, 0, 0, 1] }, brain, app.panes[0].frame.width, app.panes[0].frame.height, INSET);
      view.turn = uprightTowards(outwards(level, id), brain);
    }
    app.go(view);
  };

  /** The direction from the middle of a hemisphere to a vertex, in the world. */
  function outwards(level, id) {
    const hemisphere = hemisphereOf(brain, id);
    const model = level.models[hemisphere === brain.left ? 0 : 1];
    const { seen } = project(level, brain, id);
    return [0, 1, 2].map((k) => seen[k] - model[12 + k] * 0.4);
  }

  // -- maps ---------------------------------------------------------------------------------------------------------

  app.show = (name) => {
    const map = maps.find((each) => each.name === name);
    if (!map) return false;
    if (app.threshold && app.threshold.map === app.map && map !== app.map) app.threshold = null;
    app.map = map;
    changed();
    return true;
  };

  app.nextMap = (by) => {
    app.show(maps[(maps.indexOf(app.map) + by + maps.length) % maps.length].name);
    app.say(app.map.title);
  };

  app.showBeside = (map) => {
    app.beside = map;
    stage.classList.toggle("two", Boolean(map));
    changed();
  };

  app.setThreshold = (map, value) => {
    const scale = map && thresholdOf(map);
    app.threshold = scale && value > scale.low ? { map, value: clamp(value, scale.low, scale.high), measure: scale.measure } : null;
    changed();
  };

  app.setChance = (hide) => {
    app.hideChance = hide;
    changed();
  };

  app.setOutlines = (show) => {
    app.outlines = show;
    changed();
  };

  app.setTheme = (theme) => {
    app.theme = root.dataset.theme = theme;
    const style = getComputedStyle(root);
    const grey = GREYS[theme].map((share) => Math.round(share * 255));
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    app.colours = { ground: colour("ground"), ink: colour("ink"), faint: colour("faint"), line: colour("line"), warn: colour("warn"), faintest: content.opacity.faintest, cortex: `rgb(${grey[0]}, ${grey[0]}, ${grey[0]})` };
    find("theme").textContent = theme === "dark" ? "Light" : "Dark";
    changed();
    app.refreshCard();
  };

  function changed() {
    refreshControls(app, find);
    app.request();
    app.refreshCard();
  }

  app.photograph = () => app.photographs.current();
  app.nextPhotograph = (by) => app.photographs.step(by);

  // -- vertices -----------------------------------------------------------------------------------------------------

  /** The vertex nearest to the middle of the view, one with data before others: the middle itself may be beside the brain. */
  function nearMiddle(frame) {
    const [x, y] = [frame.width / 2, frame.height / 2 - frame.shift[1] + app.view.pan[1] * Math.min(frame.width, frame.height)];
    let other = -1;
    for (let away = 0; away < Math.max(frame.width, frame.height) / 2; away += NEAR_STEP) {
      const turns = away ? NEAR_TURNS : 1;
      for (let turn = 0; turn < turns; turn++) {
        const angle = (2 * Math.PI * turn) / turns;
        const place = [x + away * Math.cos(angle), y + away * Math.sin(angle)];
        if (place[0] < 0 || place[1] < 0 || place[0] >= frame.width || place[1] >= frame.height) continue;
        const id = picker.at(frame, ...place);
        if (id >= 0 && brain.row[id] >= 0) return id;
        if (other < 0) other = id;
      }
    }
    return other;
  }

  app.pickAt = (at) => {
    if (app.isMoving()) app.layout();
    const { frame } = app.panes[0];
    app.select(at ? picker.at(frame, app.inPane(at[0]), at[1]) : nearMiddle(frame));
    if (app.selected >= 0) forgetHint();
  };

  app.select = (id) => {
    app.selected = id;
    find("card").hidden = id < 0;
    if (id >= 0) find("card").classList.toggle("left", project(app.still().panes[0].frame, brain, id).x > stage.clientWidth / 2);
    app.refreshCard();
    app.say(id < 0 ? "" : sentence(app, describeVertex(app, id)));
    app.request();
  };

  app.refreshCard = () => {
    if (app.selected >= 0) fillCard(app, find("card"), app.selected, () => app.select(-1));
  };

  /** From the picked vertex to its neighbour in a direction on the screen. */
  app.step = ([x, y]) => {
    if (app.selected < 0) return app.pickAt(null);
    const hemisphere = hemisphereOf(brain, app.selected);
    const here = project(app.panes[0].frame, brain, app.selected);
    let [best, most] = [-1, 0];
    for (const vertex of neighbours(hemisphere.mesh, app.selected - hemisphere.first)) {
      const place = project(app.panes[0].frame, brain, vertex + hemisphere.first);
      const away = [place.x - here.x, place.y - here.y];
      const along = (away[0] * x + away[1] * y) / (Math.hypot(...away) || 1);
      if (along > most) [best, most] = [vertex + hemisphere.first, along];
    }
    if (best >= 0) app.select(best);
  };

  app.hover = (at) => {
    hovered = at;
    if (!at) find("tip").hidden = true;
    else if (!app.isMoving()) requestAnimationFrame(showTip);
  };

  function showTip() {
    if (!hovered || app.isMoving()) return;
    const { frame } = app.panes[0];
    const [tip, id] = [find("tip"), picker.at(frame, app.inPane(hovered[0]), hovered[1])];
    tip.hidden = id < 0;
    if (id < 0) return;
    fillTip(app, tip, id);
    const left = Math.min(hovered[0] + 14, stage.clientWidth - tip.offsetWidth - 8);
    tip.style.transform = `translate(${left}px, ${Math.max(hovered[1] - tip.offsetHeight - 10, 4)}px)`;
  }

  app.say = (text, visibly) => {
    find("said").textContent = text;
    if (visibly) {
      find("hint").textContent = text;
      setTimeout(() => (find("hint").textContent = hint()), 4000);
    }
  };

  const hint = () => (used ? "" : `${app.flattens ? "Slide to flatten. " : ""}Drag to turn, ${matchMedia("(pointer: coarse)").matches ? "pinch to zoom, tap" : "scroll to zoom, click"} a vertex for its values.`);

  /** Who has clicked a vertex knows what the hint says. */
  function forgetHint() {
    if (used) return;
    used = true;
    setTimeout(() => (find("hint").textContent = hint()), 6000);
  }

  // -- pictures and links -------------------------------------------------------------------------------------------

  app.still = () => {
    const [width, height] = app.layout();
    return { width, height, panes: app.panes, colours: app.colours };
  };

  app.savePicture = () => {
    pictureOf(app).toBlob((blob) => {
      const link = element("a", { href: URL.createObjectURL(blob), download: `${app.map.name}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    app.say("Picture saved.", true);
  };

  app.copyLink = async () => {
    const address = location.href.replace(/#.*/s, "") + hashOf(app);
    try {
      await navigator.clipboard.writeText(address);
      app.say("Link copied: it opens this view of this file.", true);
    } catch {
      prompt("The address of this view:", address);
    }
  };

  app.photographs = openPhotographs(app, content.photographs, maps[0], find);
  buildControls(app, find);
  find("hint").textContent = hint();
  listenToPointer(app, overlay);
  listenToKeys(app, overlay);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  app.setTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => app.setTheme(dark.matches ? "dark" : "light"));
  applyHash(app, location.hash);
  addEventListener("hashchange", () => applyHash(app, location.hash));
  new ResizeObserver(() => {
    refreshLegends(app, find);
    app.request();
  }).observe(stage);
  find("cortex").addEventListener("webglcontextlost", () => fail(new Error("The graphics card stopped. Reload the page.")));
  return app;
}

/** What scripts and tests use. */
function publish(app) {
  window.brainkit = {
    maps: app.maps.map((map) => map.name),
    show: (name) => app.show(name),
    view: ({ inflate, flat, sphere, side } = {}) => {
      const change = side && SIDES[side] ? sideView(side) : {};
      if (side === "flat") flat = 1;
      if (flat !== undefined) change.shape = flat > 0 ? 1 + clamp(flat, 0, 1) : Math.min(app.view.shape, 1);
      if (inflate !== undefined && !flat) change.shape = clamp(inflate, 0, 1);
      if (sphere !== undefined) Object.assign(change, { sphere: clamp(sphere, 0, 1), shape: sphere > 0 ? 1 : change.shape ?? app.view.shape });
      app.jump(change);
      const { shape } = app.view;
      return { inflate: Math.min(shape, 1), flat: Math.max(shape - 1, 0), sphere: app.view.sphere };
    },
    pick: (id) => {
      app.select(id);
      return describeVertex(app, id);
    },
    place: (id) => {
      const { frame } = app.still().panes[0];
      const box = find("overlay").getBoundingClientRect();
      const { x, y, facing, hidden } = project(frame, app.brain, id);
      return { x: x + box.left, y: y + box.top, facing, hidden };
    },
    picked: () => app.selected,
    rest: () => app.rest(),
    detail: () => app.renderer.detail(),
  };
}

function fail(error) {
  root.dataset.state = "failed";
  root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  find("why").textContent = `${error.message} Here are still pictures of the maps instead.`;
  if (!document.querySelector(".fallback figure")) find("why").textContent = error.message;
}

async function main() {
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const bytes = await decompress(find("arrays").textContent);
  const app = startApp(JSON.parse(find("content").textContent), arrayReader(bytes));
  publish(app);
  root.dataset.state = "ready";
  app.setTheme(app.theme); // now that the panel has its size
}

main().catch(fail);
