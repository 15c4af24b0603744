// The page's arrays: one compressed text, written by page/pack.py.

const UNKNOWN = 65535;
const ARRAYS = { u8: Uint8Array, i8: Int8Array, u16: Uint16Array, i16: Int16Array, u32: Uint32Array, i32: Int32Array };

async function decompress(text) {
  if (typeof DecompressionStream === "undefined") throw new Error("This browser cannot decompress the page's data.");
  const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** A function that restores the array of a description: (count x columns), row after row. */
function arrayReader(bytes) {
  return ({ at, count, columns, type, delta }) => {
    const Kind = ARRAYS[type];
    const size = Kind.BYTES_PER_ELEMENT;
    const array = new Kind(count * columns);
    for (let column = 0; column < columns; column++) {
      const start = at + column * count * size;
      let sum = 0;
      for (let i = 0; i < count; i++) {
        let value = 0;
        for (let byte = 0; byte < size; byte++) value |= bytes[start + byte * count + i] << (8 * byte);
        sum = delta ? (sum + value) | 0 : value;
        array[i * columns + column] = sum; // wraps around, as differences do
      }
    }
    return array;
  };
}

/** Numbers of a description with `low` and `step`; NaN where unknown. */
function readNumbers(read, described) {
  const whole = read(described);
  if (described.type === "u32") return new Float32Array(whole.buffer);
  const numbers = new Float32Array(whole.length);
  for (let i = 0; i < whole.length; i++) {
    numbers[i] = whole[i] === UNKNOWN ? NaN : described.low + described.step * whole[i];
  }
  return numbers;
}
