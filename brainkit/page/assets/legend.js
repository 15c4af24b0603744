// Colour bars, legends and the key of locations, drawn on a canvas: the panel and the screenshot use the same.

const FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const BAR = 10;
const ROW = 19;

/** Draw a legend with its upper left corner at the origin; `colours` are {ink, faint, cortex}. Returns its height. */
function drawLegend(context, map, width, colours, threshold) {
  context.textBaseline = "alphabetic";
  if (map.kind === "categorical") return drawClasses(context, map, width, colours);
  return map.kind === "location" ? drawLocations(context, map, width, colours) : drawBar(context, map, width, colours, threshold);
}

function drawBar(context, map, width, colours, threshold) {
  let top = writeLines(context, map.label, 12, width, colours.ink) + 8;
  const [low, high] = [map.extend === "min" || map.extend === "both", map.extend === "max" || map.extend === "both"];
  const [left, right] = [low ? BAR : 0, width - (high ? BAR : 0)];
  const gradient = context.createLinearGradient(left, 0, right, 0);
  for (let i = 0; i <= 32; i++) gradient.addColorStop(i / 32, rgb(map.table, Math.round((i / 32) * 255)));
  context.fillStyle = gradient;
  context.fillRect(left, top, right - left, BAR);
  if (low) arrow(context, left, top, -BAR, map.below || rgb(map.table, 0));
  if (high) arrow(context, right, top, BAR, rgb(map.table, 255));
  const place = (value) => left + ((right - left) * (value - map.low)) / (map.high - map.low);
  if (threshold) hide(context, map, threshold, place, top, colours);
  const ticks = roundTicks(map.low, map.high);
  context.strokeStyle = colours.faint;
  context.lineWidth = 1;
  ticks.forEach((tick) => {
    context.beginPath();
    context.moveTo(place(tick), top + BAR);
    context.lineTo(place(tick), top + BAR + 4);
    context.stroke();
  });
  top += BAR + 17;
  ticks.forEach((tick) => {
    const text = plainNumber(tick);
    const half = measure(context, text, 11) / 2;
    write(context, text, clamp(place(tick) - half, 0, width - 2 * half), top, width, colours.ink, 11);
  });
  if (map.ends.length) {
    top += 16;
    const room = width / 2 - 6;
    write(context, map.ends[0], 0, top, room, colours.faint, 11);
    const text = shortened(context, map.ends[1], room, 11);
    write(context, text, width - measure(context, text, 11), top, room, colours.faint, 11);
  }
  return top + 5;
}

function arrow(context, x, top, length, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(x, top);
  context.lineTo(x + length, top + BAR / 2);
  context.lineTo(x, top + BAR);
  context.fill();
}

/** Cover the part of the bar that the threshold leaves out. */
function hide(context, map, threshold, place, top, colours) {
  const [from, to] = threshold.measure === 1 ? [-threshold.value, threshold.value] : [map.low, threshold.value];
  const [left, right] = [place(Math.max(from, map.low)), place(Math.min(to, map.high))];
  context.fillStyle = colours.cortex;
  context.fillRect(left, top, right - left, BAR);
}

function drawClasses(context, map, width, colours) {
  let top = writeLines(context, map.label, 12, width, colours.ink) + 8;
  const columns = map.names.length > 14 ? 2 : 1;
  const rows = Math.ceil(map.names.length / columns);
  const across = width / columns;
  const swatch = columns > 1 ? 22 : 44;
  map.names.forEach((name, i) => {
    // The last class on top, as in the figures: layers from early, below, to late, above.
    const k = map.names.length - 1 - i;
    const [x, y] = [across * Math.floor(i / rows), top + ROW * (i % rows)];
    const gradient = context.createLinearGradient(x, 0, x + swatch, 0);
    context.fillStyle = colours.cortex;
    context.fillRect(x, y, swatch, ROW - 3);
    gradient.addColorStop(0, rgb(map.table, k, map.strength ? colours.faintest : 1));
    gradient.addColorStop(1, rgb(map.table, k));
    context.fillStyle = gradient;
    context.fillRect(x, y, swatch, ROW - 3);
    write(context, map.names[k], x + swatch + 8, y + 12, across - swatch - 12, colours.ink, 11.5);
  });
  top += ROW * rows + 2;
  for (const line of map.strength ? map.strengthLabel.split("\n") : []) top = write(context, line, 0, top + 13, width, colours.faint, 11);
  return top + 6;
}

function drawLocations(context, map, width, colours) {
  let top = write(context, map.label, 0, 12, width, colours.ink, 12) + 20;
  const size = Math.min(112, width - 80);
  const left = (width - size) / 2;
  context.imageSmoothingEnabled = true;
  context.drawImage(tableImage(map.table), left, top, size, size);
  context.strokeStyle = "rgba(255, 255, 255, 0.75)";
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(left + size / 2, top);
  context.lineTo(left + size / 2, top + size);
  context.moveTo(left, top + size / 2);
  context.lineTo(left + size, top + size / 2);
  context.stroke();
  for (const [text, x, y] of [
    ["up", left + size / 2 - measure(context, "up", 11) / 2, top - 6],
    ["down", left + size / 2 - measure(context, "down", 11) / 2, top + size + 14],
    ["left", left - measure(context, "left", 11) - 7, top + size / 2 + 4],
    ["right", left + size + 7, top + size / 2 + 4],
  ]) write(context, text, x, y, width, colours.faint, 11);
  return top + size + 22;
}

function tableImage(table) {
  if (!table.image) {
    const size = Math.sqrt(table.length / 3);
    const pixels = new ImageData(size, size);
    for (let i = 0; i < size * size; i++) {
      for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = table[3 * i + k];
      pixels.data[4 * i + 3] = 255;
    }
    table.image = document.createElement("canvas");
    table.image.width = table.image.height = size;
    table.image.getContext("2d").putImageData(pixels, 0, 0);
  }
  return table.image;
}

/** Write a line, shortened if it is too long; returns its baseline. */
function write(context, text, x, baseline, width, colour, size, weight = 400) {
  context.fillStyle = colour;
  text = shortened(context, text, width, size, weight);
  context.fillText(text, x, baseline);
  return baseline;
}

/** Write words in as many lines as they need; returns the last baseline. */
function writeLines(context, text, baseline, width, colour) {
  let line = "";
  for (const word of text.split(/\s+/)) {
    const longer = line ? `${line} ${word}` : word;
    if (line && measure(context, longer, 12) > width) {
      write(context, line, 0, baseline, width, colour, 12);
      [line, baseline] = [word, baseline + 16];
    } else line = longer;
  }
  return write(context, line, 0, baseline, width, colour, 12);
}

function measure(context, text, size, weight = 400) {
  context.font = `${weight} ${size}px ${FONT}`;
  return context.measureText(text).width;
}

function shortened(context, text, width, size, weight = 400) {
  if (measure(context, text, size, weight) <= width) return text;
  const letters = [...text];
  while (letters.length > 1 && measure(context, `${letters.join("")}…`, size, weight) > width) letters.pop();
  return `${letters.join("")}…`;
}

function roundTicks(low, high) {
  const raw = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * power >= raw * 0.999) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++) ticks.push(Number((i * step).toPrecision(6)));
  return ticks;
}
