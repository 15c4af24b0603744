// The view: shape, turn, zoom, how far the hemispheres are apart; and what follows from it: matrices, places on screen.

const FAR = 900; // mm from the eye to the middle of the scene
const DEPTH = 500; // mm that are shown before and behind it
const SIDES = {
  lateral: { open: 90, axes: [[1, 0, 0], [0, 0, 1], [0, -1, 0]] },
  medial: { open: -90, axes: [[1, 0, 0], [0, 0, 1], [0, -1, 0]] },
  ventral: { open: 0, axes: [[-1, 0, 0], [0, 1, 0], [0, 0, -1]] },
  dorsal: { open: 0, axes: [[1, 0, 0], [0, 1, 0], [0, 0, 1]] },
  posterior: { open: 0, axes: [[1, 0, 0], [0, 0, 1], [0, -1, 0]] },
};
const FACING = viewerQuaternion(...SIDES.posterior.axes);

/** The quaternion that shows what lies in a direction of the world, with the top of the head up. */
function uprightTowards(direction) {
  const length = Math.hypot(...direction) || 1;
  const toward = direction.map((part) => part / length);
  const steep = Math.abs(toward[2]) > 0.98;
  const up = steep ? [0, 1, 0] : [0, 0, 1];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const right = cross(up, toward);
  const size = Math.hypot(...right);
  const across = right.map((part) => part / size);
  return viewerQuaternion(across, cross(toward, across), toward);
}
const GAP = 6; // mm between the hemispheres, at least

/** The state of the view. `shape`: 0 folded, 1 inflated, 2 flat; `sphere`: 0 .. 1; `open` in degrees; `pan` in shares of
 * the stage's smaller side. */
function startView() {
  return { shape: 1, sphere: 0, open: 0, apart: 0, turn: [...FACING], base: [...FACING], zoom: 1, pan: [0, 0] };
}

function sideView(side) {
  const { open, axes } = SIDES[side];
  const turn = viewerQuaternion(...axes);
  return { open, turn, base: turn, zoom: 1, pan: [0, 0] };
}

const flatness = (view) => smooth(clamp(view.shape - 1, 0, 1)) * (1 - smooth(clamp(view.sphere, 0, 1)));

/** Weights of pial, inflated, sphere and flat, with those of shapes that the surface lacks given to one it has. */
function blendOf(view, shapes) {
  const sphere = smooth(clamp(view.sphere, 0, 1));
  const weights = {
    pial: clamp(1 - view.shape, 0, 1) * (1 - sphere),
    inflated: (1 - Math.abs(view.shape - 1)) * (1 - sphere),
    sphere,
    flat: clamp(view.shape - 1, 0, 1) * (1 - sphere),
  };
  const known = (name) => (shapes.includes(name) ? name : shapes.includes("inflated") ? "inflated" : shapes[0]);
  const blend = Object.fromEntries(shapes.map((shape) => [shape, 0]));
  for (const [name, weight] of Object.entries(weights)) blend[known(name)] += Math.max(weight, 0);
  return shapes.map((shape) => blend[shape]);
}

function between(a, b, share) {
  const view = {};
  for (const key of ["shape", "sphere", "open", "apart"]) view[key] = mix(a[key], b[key], share);
  view.zoom = a.zoom * (b.zoom / a.zoom) ** share;
  view.pan = [0, 1].map((i) => mix(a.pan[i], b.pan[i], share));
  view.turn = slerp(a.turn, b.turn, share);
  view.base = slerp(a.base, b.base, share);
  return view;
}

/** Everything that drawing needs of a view on a pane of `width` x `height` CSS pixels. */
function frameOf(view, brain, width, height, inset) {
  const flat = flatness(view);
  const blend = blendOf(view, brain.shapes);
  const open = (mix(view.open, 90, flat) * Math.PI) / 180;
  const gap = GAP + mix(view.apart, 0, flat);
  const turn = slerp(view.turn, FACING, flat);
  const [sin, cos] = [Math.sin(open), Math.cos(open)];
  const extents = brain.hemispheres.map(({ halves }) => {
    const half = [0, 1, 2].map((k) => brain.shapes.reduce((sum, shape, i) => sum + blend[i] * halves[shape][k], 0));
    return [Math.hypot(half[0] * cos, half[1] * sin), Math.hypot(half[0] * sin, half[1] * cos), half[2]];
  });
  const whole = [extents[0][0] + extents[1][0] + gap / 2, Math.max(extents[0][1], extents[1][1]), Math.max(extents[0][2], extents[1][2])];
  const base = rotationMatrix(slerp(view.base, FACING, flat));
  const [across, tall] = [0, 1].map((row) => [0, 1, 2].reduce((sum, k) => sum + Math.abs(base[4 * k + row]) * whole[k], 0));
  const room = [width - 2 * inset.side, height - inset.top - inset.bottom];
  const fit = (x, y) => Math.max(0.05, Math.min(room[0] / (2 * x), room[1] / (2 * y)));
  const middle = (extents[0][0] - extents[1][0]) / 2; // the scene is centred, whatever the sizes
  const shifts = brain.hemispheres.map(({ side }, i) => side * (extents[i][0] + gap / 2) + middle);
  // A flatmap is shown as close as its data allow.
  const near = flat > 0 ? dataBox(brain, shifts) : null;
  const fitted = near ? mix(fit(across, tall), Math.max(fit(across, tall), fit(...near.half)), flat) : fit(across, tall);
  const scale = fitted * view.zoom;
  const rotation = rotationMatrix(turn);
  const centre = near ? near.centre.map((part) => part * flat) : [0, 0];
  const models = brain.hemispheres.map(({ side }, i) => {
    const placed = matrixProduct(translationMatrix(shifts[i], 0, 0), rotationMatrix(aroundAxis(0, 0, 1, -side * open)));
    return matrixProduct(translationMatrix(-centre[0], -centre[1], 0), matrixProduct(rotation, placed));
  });
  const smaller = Math.min(width, height);
  const shift = [view.pan[0] * smaller, view.pan[1] * smaller + (inset.bottom - inset.top) / 2];
  const lens = new Float32Array(16);
  lens[0] = (2 * scale) / width;
  lens[5] = (2 * scale) / height;
  lens[10] = -1 / DEPTH;
  lens[14] = DEPTH / FAR;
  lens[11] = -1 / FAR;
  lens[15] = 1;
  // The shift is in clip space, so it is multiplied by w.
  lens[8] = (lens[11] * 2 * shift[0]) / width;
  lens[9] = (lens[11] * 2 * shift[1]) / height;
  lens[12] = (2 * shift[0]) / width;
  lens[13] = (2 * shift[1]) / height;
  return { blend, models, lens, flat, scale, width, height, extents, shift };
}

/** Middle and half the size of the part of the flatmaps that has data, in mm on the screen; null if there is none. */
function dataBox(brain, shifts) {
  const [x, y] = [[Infinity, -Infinity], [Infinity, -Infinity]];
  brain.hemispheres.forEach(({ dataBox: box }, i) => {
    if (!box || box[0][0] > box[0][1]) return;
    x[0] = Math.min(x[0], box[0][0] + shifts[i]);
    x[1] = Math.max(x[1], box[0][1] + shifts[i]);
    y[0] = Math.min(y[0], box[1][0]);
    y[1] = Math.max(y[1], box[1][1]);
  });
  if (x[0] > x[1]) return null;
  const half = [x, y].map(([low, high]) => Math.max((high - low) / 2, 10) * 1.15);
  return { centre: [x, y].map(([low, high]) => (low + high) / 2), half };
}

/** Where a vertex is on its pane, in CSS pixels, its distance towards the viewer in mm, and how much it faces them. */
function project(frame, brain, id) {
  const hemisphere = hemisphereOf(brain, id);
  const vertex = id - hemisphere.first;
  const model = frame.models[hemisphere === brain.left ? 0 : 1];
  const point = [0, 0, 0];
  const normal = [0, 0, 0];
  brain.shapes.forEach((shape, i) => {
    for (let k = 0; k < 3; k++) {
      point[k] += frame.blend[i] * hemisphere.points[shape][3 * vertex + k] * brain.step;
      normal[k] += (frame.blend[i] * hemisphere.normals[shape][4 * vertex + k]) / 127;
    }
  });
  const seen = transform(model, ...point);
  const clip = transform(frame.lens, ...seen);
  const facing = transform(model, ...normal, 0);
  // Towards the eye, not along the axis: near the border of the stage they differ.
  const toEye = [-seen[0], -seen[1], FAR - seen[2]];
  const cosine = facing.slice(0, 3).reduce((sum, part, k) => sum + part * toEye[k], 0) / (Math.hypot(...toEye) * (Math.hypot(...normal) || 1));
  return {
    x: ((clip[0] / clip[3] + 1) / 2) * frame.width,
    y: ((1 - clip[1] / clip[3]) / 2) * frame.height,
    toward: seen[2],
    facing: cosine,
    seen,
    hidden: hiddenBehind(frame, brain, hemisphere, seen, toEye),
  };
}

/** How much the other hemisphere, taken as an ellipsoid, is in the way of a point: 0 not at all, 1 wholly. */
function hiddenBehind(frame, brain, own, seen, toEye) {
  if (frame.flat > 0.5) return 0;
  const other = own === brain.left ? 1 : 0;
  const model = frame.models[other];
  const half = [0, 1, 2].map((k) => brain.shapes.reduce((sum, shape, i) => sum + frame.blend[i] * brain.hemispheres[other].halves[shape][k], 0.001));
  const offset = seen.slice(0, 3).map((part, k) => part - model[12 + k]);
  // Into the ellipsoid's own axes, where it is a unit sphere.
  const inside = (vector) => [0, 1, 2].map((k) => (model[4 * k] * vector[0] + model[4 * k + 1] * vector[1] + model[4 * k + 2] * vector[2]) / half[k]);
  const [from, along] = [inside(offset), inside(toEye)];
  const length = along.reduce((sum, part) => sum + part * part, 0);
  const nearest = -from.reduce((sum, part, k) => sum + part * along[k], 0) / length;
  if (nearest <= 0) return 0;
  const distance = Math.hypot(...from.map((part, k) => part + nearest * along[k]));
  return clamp((0.95 - distance) / 0.15, 0, 1);
}
