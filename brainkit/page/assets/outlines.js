// Outlines of regions, and the vertex at which each is named.

/** Around each region, line segments between points on edges: two ends of {from, to, share} per segment. */
function regionLines(brain, hemisphere) {
  const { mesh, count, first, onFlat } = hemisphere;
  const passes = count > 80000 ? 8 : count > 20000 ? 3 : 1; // outlines are equally smooth in mm
  const lines = [];
  const labels = [];
  let field = new Float32Array(count);
  let blurred = new Float32Array(count);
  const inside = new Uint8Array(count);
  for (const { name, members } of brain.regions) {
    const own = [];
    for (const row of members) {
      const vertex = brain.ids[row] - first;
      if (vertex >= 0 && vertex < count) own.push(vertex);
    }
    if (!own.length) continue;
    for (const vertex of own) inside[vertex] = 1;
    labels.push({ name, size: own.length, vertex: deepest(hemisphere, own, inside), hemisphere });
    const scattered = isScattered(mesh, own, inside);
    for (const vertex of own) inside[vertex] = 0;
    if (scattered) continue; // an outline around each vertex would be a thicket
    const near = grown(mesh, own, passes + 2, inside);
    for (const vertex of own) field[vertex] = 1;
    let largest = 0;
    for (let pass = 0; pass < passes; pass++) {
      largest = 0;
      for (const vertex of near) {
        blurred[vertex] = faceMean(mesh, field, vertex);
        largest = Math.max(largest, blurred[vertex]);
      }
      [field, blurred] = [blurred, field];
    }
    if (largest <= 0.55) {
      for (const vertex of near) field[vertex] = 0; // it would vanish
      for (const vertex of own) field[vertex] = 1;
    }
    crossings(mesh, field, near, onFlat, lines);
    for (const vertex of near) field[vertex] = blurred[vertex] = 0;
  }
  return { lines, labels };
}

/** The vertices, and those around them up to `rings` steps away. */
function grown(mesh, own, rings, seen) {
  const near = [...own];
  for (const vertex of own) seen[vertex] = 1;
  for (let ring = 0, from = 0; ring < rings; ring++) {
    const stop = near.length;
    for (; from < stop; from++) {
      for (let i = mesh.start[near[from]]; i < mesh.start[near[from] + 1]; i++) {
        for (let corner = 3 * mesh.around[i]; corner < 3 * mesh.around[i] + 3; corner++) {
          const other = mesh.faces[corner];
          if (seen[other]) continue;
          seen[other] = 1;
          near.push(other);
        }
      }
    }
  }
  for (const vertex of near) seen[vertex] = 0;
  return near;
}

function faceMean(mesh, field, vertex) {
  const [start, stop] = [mesh.start[vertex], mesh.start[vertex + 1]];
  let sum = 0;
  for (let i = start; i < stop; i++) {
    const face = 3 * mesh.around[i];
    sum += field[mesh.faces[face]] + field[mesh.faces[face + 1]] + field[mesh.faces[face + 2]];
  }
  return sum / (3 * Math.max(stop - start, 1));
}

/** Where the field crosses one half: in each face that it crosses, one segment. */
function crossings(mesh, field, near, onFlat, lines) {
  for (const vertex of near) {
    for (let i = mesh.start[vertex]; i < mesh.start[vertex + 1]; i++) {
      const face = mesh.around[i];
      const corners = [mesh.faces[3 * face], mesh.faces[3 * face + 1], mesh.faces[3 * face + 2]];
      if (vertex !== Math.min(...corners)) continue; // each face once
      const above = corners.map((corner) => field[corner] > 0.5);
      const number = above[0] + above[1] + above[2];
      if (number === 0 || number === 3) continue;
      const odd = above.indexOf(number === 1);
      const ends = [1, 2].map((step) => {
        const [from, to] = [corners[odd], corners[(odd + step) % 3]];
        return { from, to, share: (0.5 - field[from]) / (field[to] - field[from]) };
      });
      lines.push({ ends, flat: onFlat[face] });
    }
  }
}

/** Whether most of the vertices have fewer than two of the others beside them. */
function isScattered(mesh, own, inside) {
  let alone = 0;
  for (const vertex of own) {
    let around = 0; // each neighbour is counted once for each of the two faces that it shares with the vertex
    for (let i = mesh.start[vertex]; i < mesh.start[vertex + 1]; i++) {
      const face = 3 * mesh.around[i];
      for (let corner = face; corner < face + 3; corner++) if (mesh.faces[corner] !== vertex) around += inside[mesh.faces[corner]];
    }
    if (around < 4) alone++;
  }
  return alone > own.length / 2;
}

/** The vertex of a region that is farthest from its border, and of these the most central one. */
function deepest(hemisphere, own, inside) {
  const { mesh, points } = hemisphere;
  const shape = points.inflated || Object.values(points)[0];
  const centre = [0, 1, 2].map((k) => own.reduce((sum, vertex) => sum + shape[3 * vertex + k], 0) / own.length);
  const away = (vertex) => Math.hypot(shape[3 * vertex] - centre[0], shape[3 * vertex + 1] - centre[1], shape[3 * vertex + 2] - centre[2]);
  const isInner = (vertex) => {
    for (let i = mesh.start[vertex]; i < mesh.start[vertex + 1]; i++) {
      const face = 3 * mesh.around[i];
      if (!(inside[mesh.faces[face]] && inside[mesh.faces[face + 1]] && inside[mesh.faces[face + 2]])) return false;
    }
    return true;
  };
  let left = own;
  for (;;) {
    const inner = left.filter(isInner);
    if (!inner.length) break;
    for (const vertex of left) inside[vertex] = 0;
    for (const vertex of inner) inside[vertex] = 1;
    left = inner;
  }
  for (const vertex of own) inside[vertex] = 1;
  return left.reduce((best, vertex) => (away(vertex) < away(best) ? vertex : best));
}

/** Ends of the segments in all shapes, as whole steps: per segment and end, four numbers a shape; the fourth is whether
 * the segment is on the flatmap. */
function lineBuffer(lines, hemisphere, shapes) {
  const buffer = new Int16Array(lines.length * 2 * shapes.length * 4);
  let at = 0;
  for (const { ends, flat } of lines) {
    for (const { from, to, share } of ends) {
      for (const shape of shapes) {
        const points = hemisphere.points[shape];
        for (let k = 0; k < 3; k++) buffer[at++] = Math.round(mix(points[3 * from + k], points[3 * to + k], share));
        buffer[at++] = flat;
      }
    }
  }
  return buffer;
}
