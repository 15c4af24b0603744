// The hemispheres: shapes, normals, faces at each fineness, and which vertices have data.

/** A hemisphere from its description. `topology` is that of the other one, if both have the same faces. */
function makeHemisphere(name, described, shapes, step, read, topology) {
  const coarse = read(described.faces);
  const same = topology && topology.coarse.length === coarse.length && coarse.every((v, i) => v === topology.coarse[i]);
  const shared = same ? topology : makeTopology(coarse, read(described.shapes[shapes[0]].points).length / 3, described.levels);
  const { levels, mesh, slots } = shared;
  const side = name === "left" ? -1 : 1;
  const points = {};
  const normals = {};
  const halves = {};
  for (const shape of shapes) {
    const { points: base, finer } = described.shapes[shape];
    let found = read(base);
    levels.slice(1).forEach((level, i) => {
      found = subdivideValues(found, 3, level.ends, finer && read(finer[i]));
    });
    points[shape] = found;
    normals[shape] = shape === "flat" ? flatNormals(found.length / 3, side) : normalsOf(found, mesh.faces);
    halves[shape] = halfSizes(found, step);
  }
  let curvature = read(described.curvature);
  if (curvature.length < described.count) {
    for (const level of levels.slice(1)) curvature = subdivideValues(curvature, 1, level.ends);
  }
  const onFlat = bits(read(described.flatFaces), mesh.faces.length / 3);
  const vertexOnFlat = new Uint8Array(described.count);
  for (let i = 0; i < mesh.faces.length; i++) if (onFlat[(i / 3) | 0]) vertexOnFlat[mesh.faces[i]] = 1;
  return { name, side, count: described.count, shared, vertexOnFlat, mesh, slots, points, normals, halves, curvature, onFlat, lists: flatFirst(shared.drawn, onFlat) };
}

function makeTopology(coarse, count, depth) {
  const levels = [{ faces: coarse, count }];
  for (let i = 0; i < depth; i++) {
    const { faces, count: known } = levels[i];
    const finer = subdivideFaces(faces, known);
    levels.push({ ...finer, count: known + finer.ends.length / 2 });
  }
  const slots = new Uint8Array(levels[depth].count);
  let mesh;
  levels.forEach((level, i) => {
    mesh = { faces: level.faces, ...facesAround(level.faces, level.count) };
    assignSlots(mesh, level.count, slots, i ? levels[i - 1].count : 0);
  });
  const coarser = coarserFaces(coarse, count);
  return { coarse, levels, drawn: coarser ? [{ faces: coarser }, ...levels] : levels, mesh, slots };
}

function flatNormals(count, side) {
  const normals = new Int8Array(4 * count);
  for (let i = 0; i < count; i++) normals[4 * i] = 127 * side;
  return normals;
}

/** Half the extent along each axis, in mm; points are centred. */
function halfSizes(points, step) {
  const half = [0, 0, 0];
  for (let i = 0; i < points.length; i++) half[i % 3] = Math.max(half[i % 3], Math.abs(points[i]));
  return half.map((steps) => steps * step);
}

function bits(packed, count) {
  const flags = new Uint8Array(count);
  for (let i = 0; i < count; i++) flags[i] = (packed[i >> 3] >> (i & 7)) & 1;
  return flags;
}

/** Of each level, its faces with those of the flatmap first, and how many corners these have. The finest level first. */
function flatFirst(levels, onFlat) {
  const found = [];
  let flags = onFlat;
  for (let i = levels.length - 1; i >= 0; i--) {
    const { faces } = levels[i];
    const ordered = new Uint32Array(faces.length);
    let [front, back] = [0, faces.length];
    for (let face = 0; face < flags.length; face++) {
      const corners = faces.subarray(3 * face, 3 * face + 3);
      if (flags[face]) {
        ordered.set(corners, front);
        front += 3;
      } else {
        back -= 3;
        ordered.set(corners, back);
      }
    }
    found.push({ faces: ordered, flat: front });
    if (i) {
      // The face in the middle of its parent tells whether the parent is on the flatmap.
      const parents = levels[i - 1].faces.length / 3;
      flags = Uint8Array.from({ length: parents }, (_, parent) => flags[parents + 3 * parent + 1]);
    }
  }
  return found;
}

/** Both hemispheres, the regions of each vertex, and which row of the data a vertex is (-1: none). */
function makeBrain(content, read) {
  const { surface } = content;
  const left = makeHemisphere("left", surface.left, surface.shapes, surface.step, read);
  const right = makeHemisphere("right", surface.right, surface.shapes, surface.step, read, left.shared);
  left.first = 0;
  right.first = left.count;
  const count = left.count + right.count;
  const ids = read(content.vertices);
  const row = new Int32Array(count).fill(-1);
  ids.forEach((id, i) => (row[id] = i));
  const regions = content.rois.map(({ name, members }) => ({ name, members: read(members) }));
  const brain = { left, right, hemispheres: [left, right], count, ids, row, regions, shapes: surface.shapes, step: surface.step };
  for (const hemisphere of brain.hemispheres) hemisphere.dataBox = surface.shapes.includes("flat") && flatDataBox(brain, hemisphere);
  return brain;
}

/** The part of a flatmap that has data: [low, high] of x, to the right on the screen, and of y, upwards; in mm. */
function flatDataBox(brain, { first, count, side, points, vertexOnFlat }) {
  const box = [[Infinity, -Infinity], [Infinity, -Infinity]];
  for (let vertex = 0; vertex < count; vertex++) {
    if (brain.row[first + vertex] < 0 || !vertexOnFlat[vertex]) continue;
    [side * points.flat[3 * vertex + 1], points.flat[3 * vertex + 2]].forEach((steps, i) => {
      box[i] = [Math.min(box[i][0], steps * brain.step), Math.max(box[i][1], steps * brain.step)];
    });
  }
  return box;
}

const hemisphereOf = (brain, id) => (id < brain.left.count ? brain.left : brain.right);

function regionsOf(brain, id) {
  const row = brain.row[id];
  return row < 0 ? [] : brain.regions.filter(({ members }) => holds(members, row)).map(({ name }) => name);
}

/** Whether a sorted list holds a number. */
function holds(sorted, wanted) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return sorted[low] === wanted;
}
