// The view as the end of the page's address, and as a picture.

const VIEW_KEYS = ["shape", "sphere", "open", "apart", "zoom"];

function hashOf(app) {
  const { view } = app;
  const parts = new URLSearchParams({ map: app.map.name });
  if (app.beside) parts.set("beside", app.beside.name);
  for (const key of VIEW_KEYS) parts.set(key, round(view[key]));
  for (const key of ["turn", "base", "pan"]) parts.set(key, view[key].map(round).join(","));
  if (app.selected >= 0) parts.set("vertex", app.selected);
  if (app.threshold) parts.set("least", `${app.threshold.map === app.map ? "" : app.threshold.map.name},${round(app.threshold.value)}`);
  if (app.hideChance) parts.set("sure", 1);
  if (!app.outlines) parts.set("regions", 0);
  if (app.photographs.index() > 0) parts.set("photograph", app.photographs.index());
  return `#${parts}`;
}

const round = (value) => Number(value.toFixed(4));

/** Restore what an address says; what it does not say, or says wrongly, stays as it is. */
function applyHash(app, hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const numbers = (key, count) => {
    const found = (parts.get(key) || "").split(",").map(Number);
    return parts.has(key) && found.length === count && found.every(Number.isFinite) ? found : null;
  };
  const photograph = numbers("photograph", 1);
  if (photograph) app.photographs.set(photograph[0] | 0, false);
  const named = (key) => app.maps.find((map) => map.name === parts.get(key));
  if (named("map")) app.show(parts.get("map"));
  app.showBeside(named("beside") || null);
  const view = {};
  for (const key of VIEW_KEYS) if (numbers(key, 1)) view[key] = numbers(key, 1)[0];
  for (const key of ["turn", "base"]) if (numbers(key, 4)) view[key] = unit(numbers(key, 4));
  if (numbers("pan", 2)) view.pan = numbers("pan", 2).map((part) => clamp(part, -20, 20));
  if (view.shape !== undefined) view.shape = clamp(view.shape, 0, app.flattens ? 2 : 1);
  if (view.sphere !== undefined) view.sphere = clamp(view.sphere, 0, 1);
  if (view.zoom !== undefined) view.zoom = clamp(view.zoom, ...ZOOM);
  app.jump(view);
  const least = (parts.get("least") || "").split(",");
  const limiting = least.length === 2 && (app.maps.find((map) => map.name === least[0]) || (least[0] === "" ? app.map : null));
  if (limiting && Number.isFinite(Number(least[1]))) app.setThreshold(limiting, Number(least[1]));
  app.setChance(parts.get("sure") === "1");
  app.setOutlines(parts.get("regions") !== "0");
  const vertex = numbers("vertex", 1);
  if (vertex && vertex[0] >= 0 && vertex[0] < app.brain.count) app.select(vertex[0] | 0);
}

/** The stage with title, legends and note, as a canvas. */
function pictureOf(app, density = 2) {
  const { width, height, panes, colours } = app.still();
  const margin = 28;
  const column = 230;
  const [all, top] = [width + column + 2 * margin, 74];
  const canvas = element("canvas", { width: Math.round(all * density), height: Math.round((height + top) * density) });
  const context = canvas.getContext("2d");
  context.fillStyle = colours.ground;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const pixels = element("canvas");
  const image = app.renderer.picture(panes, width, height, density);
  [pixels.width, pixels.height] = [image.width, image.height];
  pixels.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(pixels, 0, Math.round(top * density));
  context.setTransform(density, 0, 0, density, 0, 0);
  write(context, app.content.title || "Brain maps", margin, 36, all - 2 * margin, colours.ink, 18, 650);
  const line = [app.map.title, app.beside && app.beside.title, app.map.summary].filter(Boolean).join("  ·  ");
  write(context, line, margin, 57, all - 2 * margin, colours.faint, 12.5);
  write(context, app.content.note, margin, height + top - 16, all - 2 * margin, colours.warn, 12.5, 600);
  panes.forEach((pane) => drawLabels(context, app.brain, pane, top));
  context.save();
  context.translate(width + margin, top + 24);
  for (const pane of panes) {
    if (pane.text.caption) context.translate(0, write(context, capitalised(pane.map.title), 0, 14, column, colours.ink, 13, 600) + 6);
    context.translate(0, drawLegend(context, pane.map, column, colours, pane.threshold && pane.threshold.map === pane.map ? pane.threshold : null) + 22);
  }
  context.restore();
  return canvas;
}
