// Triangles: subdivision, neighbours, normals. Faces are flat lists of corners.

/** Each face split in four, with FreeSurfer's numbers, as cortex/surface.py does it. */
function subdivideFaces(faces, count) {
  const edges = (3 * faces.length) / 6;
  const ends = new Int32Array(2 * edges);
  const first = new Int32Array(count).fill(-1); // edges of a vertex, by its smaller end: a linked list
  const next = new Int32Array(edges);
  let made = 0;
  const middle = (a, b) => {
    const [low, high] = a < b ? [a, b] : [b, a];
    let edge = first[low];
    while (edge >= 0 && ends[2 * edge + 1] !== high) edge = next[edge];
    if (edge < 0) {
      edge = made++;
      ends[2 * edge] = low;
      ends[2 * edge + 1] = high;
      next[edge] = first[low];
      first[low] = edge;
    }
    return count + edge;
  };
  const finer = new Uint32Array(4 * faces.length);
  for (let i = 0, corner = 0, other = faces.length; i < faces.length; i += 3, corner += 3, other += 9) {
    const [a, b, c] = [faces[i], faces[i + 1], faces[i + 2]];
    const ac = middle(a, c);
    const cb = middle(c, b);
    const ba = middle(b, a);
    finer.set([a, ba, ac], corner);
    finer.set([ac, cb, c, ba, cb, ac, ba, b, cb], other);
  }
  return { faces: finer, ends };
}

/** The faces of which these are the four parts each; null if they are not, in FreeSurfer's order. */
function coarserFaces(faces, count) {
  const parents = faces.length / 12;
  if (!Number.isInteger(parents)) return null;
  const coarse = new Uint32Array(3 * parents);
  for (let i = 0; i < parents; i++) {
    const others = 3 * parents + 9 * i;
    coarse.set([faces[3 * i], faces[others + 7], faces[others + 2]], 3 * i);
  }
  const known = coarse.reduce((most, corner) => Math.max(most, corner), 0) + 1;
  if (known + (3 * parents) / 2 !== count) return null;
  const again = subdivideFaces(coarse, known).faces;
  return again.every((corner, i) => corner === faces[i]) ? coarse : null;
}

/** Values of (count x width) with those of the midpoints after them, plus `finer`, as page/geometry.py computes them. */
function subdivideValues(values, width, ends, finer) {
  const known = values.length;
  const all = new values.constructor(known + (ends.length / 2) * width);
  all.set(values);
  for (let i = 0, at = known; i < ends.length; i += 2) {
    for (let k = 0; k < width; k++, at++) {
      const sum = values[ends[i] * width + k] + values[ends[i + 1] * width + k];
      all[at] = (sum >> 1) + (finer ? finer[at - known] : 0);
    }
  }
  return all;
}

/** For each vertex the faces around it: `faces[start[v]] .. faces[start[v + 1] - 1]`. */
function facesAround(faces, count) {
  const start = new Uint32Array(count + 1);
  for (const vertex of faces) start[vertex + 1]++;
  for (let i = 0; i < count; i++) start[i + 1] += start[i];
  const fill = start.slice(0, count);
  const around = new Uint32Array(faces.length);
  for (let i = 0; i < faces.length; i++) around[fill[faces[i]]++] = (i / 3) | 0;
  return { start, around };
}

function neighbours(mesh, vertex) {
  const found = new Set();
  for (let i = mesh.start[vertex]; i < mesh.start[vertex + 1]; i++) {
    for (let corner = 0; corner < 3; corner++) found.add(mesh.faces[3 * mesh.around[i] + corner]);
  }
  found.delete(vertex);
  return found;
}

/** Normals of the vertices in 1/127, four numbers each; points have three numbers each. */
function normalsOf(points, faces) {
  const count = points.length / 3;
  const sums = new Float32Array(3 * count);
  for (let i = 0; i < faces.length; i += 3) {
    const a = 3 * faces[i];
    const b = 3 * faces[i + 1];
    const c = 3 * faces[i + 2];
    const ux = points[b] - points[a];
    const uy = points[b + 1] - points[a + 1];
    const uz = points[b + 2] - points[a + 2];
    const vx = points[c] - points[a];
    const vy = points[c + 1] - points[a + 1];
    const vz = points[c + 2] - points[a + 2];
    const nx = uy * vz - uz * vy;
    const ny = uz * vx - ux * vz;
    const nz = ux * vy - uy * vx;
    sums[a] += nx; sums[a + 1] += ny; sums[a + 2] += nz;
    sums[b] += nx; sums[b + 1] += ny; sums[b + 2] += nz;
    sums[c] += nx; sums[c + 1] += ny; sums[c + 2] += nz;
  }
  const normals = new Int8Array(4 * count);
  for (let v = 0; v < count; v++) {
    const [x, y, z] = [sums[3 * v], sums[3 * v + 1], sums[3 * v + 2]];
    const scale = 127 / (Math.sqrt(x * x + y * y + z * z) || 1);
    normals[4 * v] = Math.round(x * scale);
    normals[4 * v + 1] = Math.round(y * scale);
    normals[4 * v + 2] = Math.round(z * scale);
  }
  return normals;
}

/** A number of 0 .. 7 for each vertex that differs from those of its neighbours; `slots` are known up to `from`.
 *
 * The three corners of a face thus never share one, so a shader can tell them apart after interpolation. Where a vertex
 * has more neighbours than numbers, it shares one, and borders of classes are rough there. */
function assignSlots(mesh, count, slots, from) {
  for (let vertex = from; vertex < count; vertex++) {
    let taken = 0;
    for (let i = mesh.start[vertex]; i < mesh.start[vertex + 1]; i++) {
      const face = 3 * mesh.around[i];
      for (let corner = face; corner < face + 3; corner++) {
        const other = mesh.faces[corner];
        if (other < vertex) taken |= 1 << slots[other];
      }
    }
    let slot = 0;
    while (slot < 7 && taken & (1 << slot)) slot++;
    slots[vertex] = slot;
  }
}
