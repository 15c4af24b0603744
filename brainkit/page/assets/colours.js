// Maps as the page holds them: values by row of the data, colour tables, texts of values.

const KINDS = { continuous: 0, categorical: 1, location: 2 };

function openMaps(content, read, brain) {
  const tables = Object.fromEntries(Object.entries(content.tables).map(([name, described]) => [name, read(described)]));
  const maps = content.maps.map((described) => openMap(described, read, tables));
  const { photographs } = content;
  if (photographs) maps.unshift(responseMap(photographs, read(photographs.responses), tables, brain.ids.length));
  return maps;
}

function openMap(described, read, tables) {
  const map = { ...described, table: tables[described.table] };
  map.reliable = described.reliable && read(described.reliable);
  map.strength = described.strength && read(described.strength);
  if (map.kind === "categorical") {
    map.table = read(described.palette);
    map.shares = read(described.values);
    map.known = read(described.known);
    Object.assign(map, largestTwo(map.shares, map.names.length));
  } else {
    map.values = readNumbers(read, described.values);
  }
  return map;
}

/** The map of the responses predicted to a photograph; `setPhotograph` fills it. */
function responseMap({ step, limit, units, table }, responses, tables, rows) {
  return {
    name: "response", title: "predicted response", kind: "continuous", table: tables[table], responses, step, rows,
    low: -limit, high: limit, ends: [], extend: "both", below: "", label: units ? `response (${units})` : "response",
    summary: "", detail: `values rounded to within ${plainNumber(step / 2)}`, empty: "", values: new Float32Array(rows), photograph: -1,
  };
}

function setPhotograph(map, index) {
  map.photograph = index;
  for (let row = 0; row < map.rows; row++) {
    const whole = map.responses[index * map.rows + row];
    map.values[row] = whole === -128 ? NaN : whole * map.step;
  }
}

/** The classes with the largest and the second largest share of each row. */
function largestTwo(shares, width) {
  const rows = shares.length / width;
  const [classes, seconds] = [new Uint8Array(rows), new Uint8Array(rows)];
  for (let row = 0; row < rows; row++) {
    const share = (k) => shares[row * width + k];
    let [first, second] = [0, -1];
    for (let k = 1; k < width; k++) {
      if (share(k) > share(first)) [first, second] = [k, first];
      else if (second < 0 || share(k) > share(second)) second = k;
    }
    classes[row] = first;
    seconds[row] = Math.max(second, 0);
  }
  return { classes, seconds };
}

function isKnown(map, row) {
  if (row < 0) return false;
  if (map.kind === "categorical") return map.known[row] > 0;
  return map.kind === "location" ? !Number.isNaN(map.values[2 * row]) && !Number.isNaN(map.values[2 * row + 1]) : !Number.isNaN(map.values[row]);
}

/** Four numbers for each vertex of the brain: value and nothing, or x and y; known; 2 * reliable + strength.
 *
 * Of classes, the first two are first * 256 + second, and their shares likewise. */
function texels(map, brain) {
  const data = new Float32Array(4 * brain.count);
  for (let row = 0; row < brain.ids.length; row++) {
    if (!isKnown(map, row)) continue;
    const at = 4 * brain.ids[row];
    if (map.kind === "location") {
      data[at] = map.values[2 * row];
      data[at + 1] = map.values[2 * row + 1];
    } else if (map.kind === "categorical") {
      const [first, second] = [map.classes[row], map.seconds[row]];
      const share = (k) => map.shares[row * map.names.length + k];
      data[at] = first * 256 + second;
      data[at + 1] = share(first) * 256 + (first === second ? 0 : share(second));
    } else data[at] = map.values[row];
    data[at + 2] = 1;
    data[at + 3] = (map.reliable ? 2 * map.reliable[row] : 2) + (map.strength ? map.strength[row] / 255 : 1);
  }
  return data;
}

/** What a threshold is put on: the number itself, its distance from 0, the strength, the distance from the centre. */
function thresholdOf(map) {
  if (map.kind === "location") return { low: 0, high: 1, label: "distance from the centre", measure: 3 };
  if (map.kind === "categorical") return map.strength && { low: 0, high: 1, label: map.strengthName, measure: 2 };
  if (map.low < 0 && map.high > 0) return { low: 0, high: Math.max(-map.low, map.high), label: "distance from 0", measure: 1 };
  return { low: map.low, high: map.high, label: map.label, measure: 0 };
}

/** A map's value at a row as the tests and scripts get it: number, [x, y], name of the class; null if unknown. */
function valueOf(map, row) {
  if (!isKnown(map, row)) return null;
  if (map.kind === "categorical") return map.names[map.classes[row]];
  return map.kind === "location" ? [map.values[2 * row], map.values[2 * row + 1]] : map.values[row];
}

function valueText(map, row) {
  const value = valueOf(map, row);
  if (value === null) return "unknown";
  if (map.kind === "categorical") return value;
  if (map.kind !== "location") return exactNumber(value);
  const [x, y] = value.map((part) => Math.abs(part).toFixed(2));
  return `${x} ${value[0] < 0 ? "left" : "right"}, ${y} ${value[1] < 0 ? "up" : "down"}`;
}

/** Three significant digits, zeros at the end kept. */
function exactNumber(value) {
  const size = Math.abs(value);
  return size >= 0.01 && size < 1000 ? value.toPrecision(3).replace("-", "−") : plainNumber(value);
}

/** Three significant digits, no exponent where it can be helped, a true minus sign. */
function plainNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-4 ? size.toExponential(1) : size >= 1000 ? Math.round(size).toLocaleString("en") : String(Number(size.toPrecision(size < 0.1 ? 2 : 3)));
  return value < 0 ? `−${text}` : text;
}

const rgb = (table, i, alpha = 1) => `rgba(${table[3 * i]}, ${table[3 * i + 1]}, ${table[3 * i + 2]}, ${alpha})`;
