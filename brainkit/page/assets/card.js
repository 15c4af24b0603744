// What is known of a vertex: the card, the tip under the pointer, the sentence that is read out.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const groups = new Intl.NumberFormat("en");

/** id, hemisphere, regions and the value of each map, as `window.brainkit.pick` gives them. */
function describeVertex(app, id) {
  const row = app.brain.row[id];
  const values = Object.fromEntries(app.maps.map((map) => [map.name, row < 0 ? null : valueOf(map, row)]));
  for (const { label, numbers } of app.facts) values[label] = row < 0 || Number.isNaN(numbers[row]) ? null : numbers[row];
  return { id, hemisphere: hemisphereOf(app.brain, id).name, rois: regionsOf(app.brain, id), values };
}

function sentence(app, { id, hemisphere, rois }) {
  const row = app.brain.row[id];
  const value = row < 0 ? "no data" : `${app.map.title} ${valueText(app.map, row)}`;
  return `Vertex ${groups.format(id)}, ${hemisphere} hemisphere, ${rois.join(", ") || "in no ROI"}: ${value}`;
}

function fillTip(app, tip, id) {
  const row = app.brain.row[id];
  const value = isKnown(app.map, row) ? valueText(app.map, row) : "no data";
  const where = regionsOf(app.brain, id).join(", ");
  tip.replaceChildren(element("b", { textContent: value }), where ? ` · ${where}` : "");
}

function fillCard(app, card, id, close) {
  const row = app.brain.row[id];
  const { hemisphere, rois } = describeVertex(app, id);
  const list = element("dl");
  const button = element("button", { type: "button", className: "close", textContent: "×", onclick: close });
  button.setAttribute("aria-label", "Close");
  card.replaceChildren(
    element("h2", { textContent: `Vertex ${groups.format(id)}` }),
    element("p", { className: "where", dir: "auto", textContent: [`${hemisphere} hemisphere`, ...rois].join(" · ") }),
    button,
    list,
  );
  if (row < 0) {
    list.append(element("div", {}, element("dt", { textContent: "No data at this vertex" })));
    return;
  }
  const add = (label, text, drawing, unit) => {
    const name = element("dt", { textContent: label });
    if (unit && unit !== label) name.append(element("small", { textContent: unit }));
    const row = element("div", {}, name, element("dd", { textContent: text }));
    if (drawing) row.append(element("dd", { className: "span" }, drawing));
    list.append(row);
  };
  for (const { label, numbers } of app.facts) add(label, Number.isNaN(numbers[row]) ? "unknown" : exactNumber(numbers[row]));
  for (const map of app.maps) {
    const drawing = isKnown(map, row) ? drawingOf(app, map, row) : null;
    add(map.title, valueText(map, row), drawing, map.kind === "continuous" ? map.label : "");
    if (map === app.map && map.reliable && isKnown(map, row) && !map.reliable[row]) add(`${map.title} may be chance`, "");
  }
}

function drawingOf(app, map, row) {
  if (map.kind === "categorical" && map.names.length > 1) return drawing(64, (context, width, height) => drawProfile(context, app, map, row, width, height), profileText(map, row));
  if (map.kind === "location") return drawing(112, (context, width, height) => drawPlace(context, app, map, row, width, height), "");
  if (map.ends && map.ends.length) return drawing(24, (context, width) => drawTrack(context, app, map, row, width), "");
  return null;
}

/** A canvas that is drawn once it has a width. */
function drawing(height, draw, text) {
  const canvas = element("canvas", { height });
  canvas.style.height = `${height}px`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", text || "drawing");
  requestAnimationFrame(() => {
    const context = sharp(canvas, canvas.clientWidth, height);
    draw(context, canvas.clientWidth, height);
  });
  return canvas;
}

/** The context of a canvas of this size in CSS pixels, sharp on every screen. */
function sharp(canvas, width, height) {
  const density = Math.max(1, window.devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(width * density));
  canvas.height = Math.max(1, Math.round(height * density));
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  return context;
}

function sharesOf(map, row) {
  const width = map.names.length;
  const shares = [...map.shares.subarray(row * width, (row + 1) * width)];
  const sum = shares.reduce((total, share) => total + share, 0) || 1;
  return shares.map((share) => share / sum);
}

const profileText = (map, row) => sharesOf(map, row).map((share, k) => `${map.names[k]} ${Math.round(100 * share)} %`).join(", ");

/** The share of each class as a bar; the first, the last and the largest are named. */
function drawProfile(context, app, map, row, width, height) {
  const shares = sharesOf(map, row);
  const top = Math.max(...shares);
  const across = width / shares.length;
  const floor = height - 16;
  shares.forEach((share, k) => {
    const tall = Math.max(1.5, (share / top) * (floor - 2));
    context.fillStyle = rgb(map.table, k);
    context.fillRect(k * across + 1, floor - tall, Math.max(1, across - 2), tall);
  });
  context.strokeStyle = app.colours.line;
  context.strokeRect(0, floor + 0.5, width, 0);
  write(context, map.names[0], 0, height - 3, width / 2 - 4, app.colours.faint, 11);
  const last = shortened(context, map.names[shares.length - 1], width / 2 - 4, 11);
  write(context, last, width - measure(context, last, 11), height - 3, width, app.colours.faint, 11);
}

/** The location on the photograph, or on an empty frame. */
function drawPlace(context, app, map, row, width, height) {
  const size = height;
  const [x, y] = [map.values[2 * row], map.values[2 * row + 1]].map((part) => ((clamp(part, -1, 1) + 1) / 2) * size);
  const image = app.photograph();
  if (image) context.drawImage(image, 0, 0, size, size);
  else {
    context.globalAlpha = 0.85;
    context.drawImage(tableImage(map.table), 0, 0, size, size);
    context.globalAlpha = 1;
  }
  for (const [line, ink] of [[3, "rgba(20, 22, 26, 0.7)"], [1.4, "#ffffff"]]) {
    context.strokeStyle = ink;
    context.lineWidth = line;
    context.beginPath();
    context.arc(x, y, 6, 0, 2 * Math.PI);
    context.moveTo(x - 11, y);
    context.lineTo(x + 11, y);
    context.moveTo(x, y - 11);
    context.lineTo(x, y + 11);
    context.stroke();
  }
  const text = image ? ["on the photograph"] : ["the image,", "as the network", "sees it"];
  text.forEach((line, i) => write(context, line, size + 12, 14 + 16 * i, width - size - 12, app.colours.faint, 11.5));
}

/** Where a value lies between its two ends. */
function drawTrack(context, app, map, row, width) {
  const share = clamp((map.values[row] - map.low) / (map.high - map.low), 0, 1);
  context.fillStyle = app.colours.line;
  context.fillRect(0, 4, width, 3);
  context.fillStyle = rgb(map.table, Math.round(share * 255));
  context.strokeStyle = app.colours.ink;
  context.beginPath();
  context.arc(5 + share * (width - 10), 5.5, 4.5, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
  write(context, map.ends[0], 0, 21, width / 2, app.colours.faint, 11);
  const last = shortened(context, map.ends[1], width / 2, 11);
  write(context, last, width - measure(context, last, 11), 21, width, app.colours.faint, 11);
}
