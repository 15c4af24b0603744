// Mouse, pen and fingers: turn, move, zoom, pick a vertex.

const CLICK = 5; // px that a click may wander

function listenToPointer(app, overlay) {
  const pointers = new Map();
  let start = null;
  let wandered = 0;

  overlay.addEventListener("pointerdown", (event) => {
    overlay.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, placeOf(event));
    if (pointers.size === 1) [start, wandered] = [placeOf(event), 0];
    else wandered = Infinity;
    app.hover(null);
  });

  overlay.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    const here = placeOf(event);
    if (!before) {
      if (event.pointerType === "mouse") app.hover(here);
      return;
    }
    if (pointers.size === 1) {
      wandered = Math.max(wandered, Math.hypot(here[0] - start[0], here[1] - start[1]));
      if (wandered > CLICK) {
        const shift = [here[0] - before[0], here[1] - before[1]];
        if (event.shiftKey || event.buttons & 6) app.move(...shift);
        else app.drag(...shift);
      }
    } else if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const spread = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      const middle = [(here[0] + other[0]) / 2, (here[1] + other[1]) / 2];
      app.move((here[0] - before[0]) / 2, (here[1] - before[1]) / 2);
      app.zoom(spread(here) / spread(before), middle);
    }
    pointers.set(event.pointerId, here);
  });

  const release = (event) => {
    const known = pointers.delete(event.pointerId);
    if (known && event.type === "pointerup" && wandered <= CLICK && event.button === 0) app.pickAt(placeOf(event));
  };
  overlay.addEventListener("pointerup", release);
  overlay.addEventListener("pointercancel", release);
  overlay.addEventListener("pointerleave", () => app.hover(null));
  overlay.addEventListener("contextmenu", (event) => event.preventDefault());
  overlay.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    app.zoom(Math.exp(-clamp(event.deltaY * lines, -200, 200) * (event.ctrlKey ? 0.01 : 0.0016)), placeOf(event));
  }, { passive: false });

  function placeOf(event) {
    const box = overlay.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
}
