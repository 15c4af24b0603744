// The panel: maps, legends, threshold, what is shown beside, finding a region.

function buildControls(app, find) {
  const { content } = app;
  find("title").textContent = content.title || "Brain maps";
  find("note").textContent = content.note;
  find("note").hidden = !content.note;
  for (const map of app.maps) {
    const input = element("input", { type: "radio", name: "map", value: map.name, onchange: () => app.show(map.name) });
    find("maps").append(element("label", {}, input, element("span", { textContent: map.title, dir: "auto" })));
  }
  const option = (text, value) => element("option", { textContent: text, value });
  find("beside").append(option("none", ""), ...app.maps.map((map) => option(map.title, map.name)));
  find("beside").onchange = (event) => app.showBeside(app.maps.find((map) => map.name === event.target.value) || null);
  find("limiting").append(option("this map", ""), ...app.maps.filter(thresholdOf).map((map) => option(map.title, map.name)));
  find("limiting").onchange = () => app.setThreshold(null);
  find("threshold").oninput = (event) => app.setThreshold(limitingMap(app, find), Number(event.target.value));
  find("chance").onchange = (event) => app.setChance(event.target.checked);
  find("outlines").onchange = (event) => app.setOutlines(event.target.checked);
  for (const key of ["apart", "open"]) find(key).oninput = (event) => app.jump({ [key]: Number(event.target.value) });
  find("outlines").closest("label").hidden = !app.labels.length;
  buildFinder(app, find);
  for (const side of [...Object.keys(SIDES), ...(app.flattens ? ["flat"] : [])]) {
    const name = side[0].toUpperCase() + side.slice(1);
    find("sides").append(element("button", { type: "button", textContent: name, onclick: () => app.goSide(side) }));
  }
  buildShape(app, find);
  find("reset").onclick = () => app.reset();
  find("picture").onclick = () => app.savePicture();
  find("link").onclick = () => app.copyLink();
  find("link").hidden = location.protocol === "about:"; // inside a report, a view has no address
  find("theme").onclick = () => app.setTheme(app.theme === "dark" ? "light" : "dark");
  find("keys").append(...KEYS.flatMap(([key, does]) => [element("dt", { textContent: key }), element("dd", { textContent: does })]));
  const lines = [...content.provenance, `brainkit ${content.version} · ${content.surface.name} · ${groups.format(app.brain.ids.length)} of ${groups.format(app.brain.count)} vertices`];
  find("about").append(...lines.map((line) => element("p", { textContent: line, dir: "auto" })));
}

/** The slider of shapes: its stops are buttons too. */
function buildShape(app, find) {
  const { shapes } = app.brain;
  const stops = [["Folded", 0, 0], ["Inflated", 1, 0], ["Flat", 2, 0]].filter(([, shape]) => shape < 2 || app.flattens);
  const [known, slider] = [shapes.includes("pial") && shapes.includes("inflated"), find("shape")];
  slider.min = known ? 0 : 1;
  slider.max = app.flattens ? 2 : 1;
  slider.oninput = () => app.jump({ shape: Number(slider.value), sphere: 0 });
  find("shape-box").hidden = slider.min === slider.max;
  for (const [name, shape] of stops.filter(([, shape]) => shape >= slider.min)) {
    const button = element("button", { type: "button", textContent: name, onclick: () => app.go({ shape, sphere: 0 }) });
    button.style.left = `${(100 * (shape - slider.min)) / (slider.max - slider.min)}%`;
    button.dataset.shape = shape;
    find("stops").append(button);
  }
  if (!shapes.includes("sphere")) return;
  const sphere = element("button", { type: "button", id: "sphere", textContent: "Sphere", onclick: () => app.go({ sphere: app.view.sphere > 0.5 ? 0 : 1, shape: 1 }) });
  find("sides").append(sphere);
}

function buildFinder(app, find) {
  find("regions").append(...app.brain.regions.map(({ name }) => element("option", { value: name })));
  find("find").onsubmit = (event) => {
    event.preventDefault();
    const text = find("wanted").value.trim();
    const label = app.labels.flat().find(({ name }) => name.toLowerCase() === text.toLowerCase());
    const id = label ? label.vertex + label.hemisphere.first : Number(text.replace(/[,\s]/g, "") || NaN);
    if (Number.isInteger(id) && id >= 0 && id < app.brain.count) app.lookAt(id);
    else app.say(`No ROI or vertex of this name: ${text}`, true);
  };
}

const limitingMap = (app, find) => app.maps.find((map) => map.name === find("limiting").value) || app.map;

/** Bring the panel in line with the state. */
function refreshControls(app, find) {
  for (const input of find("maps").querySelectorAll("input")) input.checked = input.value === app.map.name;
  find("beside").value = app.beside ? app.beside.name : "";
  find("chance").checked = app.hideChance;
  find("outlines").checked = app.outlines;
  find("chance-row").hidden = ![app.map, app.beside].some((map) => map && map.reliable);
  const { threshold } = app;
  const scale = thresholdOf(limitingMap(app, find));
  find("threshold").disabled = !scale;
  if (scale) {
    Object.assign(find("threshold"), { min: scale.low, max: scale.high });
    find("threshold").value = threshold ? threshold.value : scale.low;
    find("threshold-label").title = scale.label;
    find("threshold").setAttribute("aria-label", `${scale.label}, at least`);
  }
  find("threshold-value").textContent = threshold ? plainNumber(threshold.value) : "all";
  refreshLegends(app, find);
}

function refreshLegends(app, find) {
  const box = find("legend");
  box.replaceChildren();
  for (const map of [app.map, app.beside]) {
    if (!map) continue;
    if (app.beside) box.append(element("p", { className: "which", textContent: map.title, dir: "auto" }));
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", legendText(map));
    box.append(canvas);
    const width = box.clientWidth || 240;
    const threshold = app.threshold && app.threshold.map === map ? app.threshold : null;
    const height = drawLegend(canvas.getContext("2d"), map, width, app.colours, threshold); // to learn the height
    canvas.style.height = `${height}px`;
    drawLegend(sharp(canvas, width, height), map, width, app.colours, threshold);
    const text = [map.empty, map.summary, map.detail].filter(Boolean).join("  ·  ");
    if (text) box.append(element("p", { className: "summary", textContent: text, dir: "auto" }));
  }
}

function legendText(map) {
  if (map.kind === "categorical") return `${map.label}: ${map.names.join(", ")}`;
  if (map.kind === "location") return `${map.label}: hue is direction, strength is distance from the centre`;
  return `${map.label}, from ${plainNumber(map.low)} to ${plainNumber(map.high)}`;
}

/** Bring the controls of the view in line with it; called while it moves. */
function refreshView(app, find) {
  const { view } = app;
  find("shape").value = view.shape;
  find("shape").setAttribute("aria-valuetext", ["folded", "inflated", "flat"][Math.round(view.shape)]);
  for (const button of find("stops").children) button.setAttribute("aria-pressed", view.sphere < 0.5 && Math.abs(view.shape - button.dataset.shape) < 0.02);
  find("apart").value = view.apart;
  find("open").value = view.open;
  const sphere = document.getElementById("sphere");
  if (sphere) sphere.setAttribute("aria-pressed", view.sphere > 0.5);
}
