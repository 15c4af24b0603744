// Vectors, quaternions [x, y, z, w], and 4 x 4 matrices by columns.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const mix = (a, b, share) => a + (b - a) * share;
const smooth = (share) => share * share * (3 - 2 * share);

function aroundAxis(x, y, z, angle) {
  const s = Math.sin(angle / 2);
  return [x * s, y * s, z * s, Math.cos(angle / 2)];
}

function times(a, b) {
  return [
    a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1],
    a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0],
    a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3],
    a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2],
  ];
}

function unit(q) {
  const length = Math.hypot(...q) || 1;
  return q.map((part) => part / length);
}

function slerp(a, b, share) {
  let cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  const sign = cosine < 0 ? -1 : 1;
  cosine = Math.min(Math.abs(cosine), 1);
  if (cosine > 0.9995) return unit(a.map((part, i) => mix(part, sign * b[i], share)));
  const angle = Math.acos(cosine);
  const [left, right] = [Math.sin((1 - share) * angle), sign * Math.sin(share * angle)];
  return unit(a.map((part, i) => left * part + right * b[i]));
}

/** The quaternion of the rotation that takes the world's axes to the viewer's: its rows are right, up, toward. */
function viewerQuaternion(right, up, toward) {
  const m = [right, up, toward];
  const trace = m[0][0] + m[1][1] + m[2][2];
  if (trace > -0.99) {
    const w = Math.sqrt(1 + trace) / 2;
    return unit([(m[2][1] - m[1][2]) / (4 * w), (m[0][2] - m[2][0]) / (4 * w), (m[1][0] - m[0][1]) / (4 * w), w]);
  }
  const x = Math.sqrt(Math.max(0, 1 + m[0][0] - m[1][1] - m[2][2])) / 2;
  const y = Math.sqrt(Math.max(0, 1 - m[0][0] + m[1][1] - m[2][2])) / 2;
  const z = Math.sqrt(Math.max(0, 1 - m[0][0] - m[1][1] + m[2][2])) / 2;
  if (x >= y && x >= z) return unit([x, m[0][1] / (2 * x), m[0][2] / (2 * x), 0]);
  return y >= z ? unit([m[0][1] / (2 * y), y, m[1][2] / (2 * y), 0]) : unit([m[0][2] / (2 * z), m[1][2] / (2 * z), z, 0]);
}

function rotationMatrix([x, y, z, w]) {
  return new Float32Array([
    1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y), 0,
    2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x), 0,
    2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y), 0,
    0, 0, 0, 1,
  ]);
}

function translationMatrix(x, y, z) {
  return new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, x, y, z, 1]);
}

function matrixProduct(a, b) {
  const product = new Float32Array(16);
  for (let column = 0; column < 4; column++) {
    for (let row = 0; row < 4; row++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += a[4 * k + row] * b[4 * column + k];
      product[4 * column + row] = sum;
    }
  }
  return product;
}

function transform(matrix, x, y, z, w = 1) {
  return [0, 1, 2, 3].map((row) => matrix[row] * x + matrix[4 + row] * y + matrix[8 + row] * z + matrix[12 + row] * w);
}
