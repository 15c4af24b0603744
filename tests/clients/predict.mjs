// Predictions of an encoder file in JavaScript: node predict.mjs ENCODER.onnx IMAGES.u8 SIDE OUT.f32
//
// IMAGES.u8 holds prepared images, uint8, one after another, SIDE x SIDE x 3 each; OUT.f32 gets float32, a row of V
// values for each image. What the columns are is printed as JSON, read from the file itself as docs/encoder-file.md
// describes, without an ONNX library.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { inflateSync } from "node:zlib";

const require = createRequire(`${process.cwd()}/`);
const DIGEST = 85; // bytes of the last entry: brainkit_sha256 and 64 hexadecimal digits

function varint(data, at) {
  let value = 0n;
  for (let shift = 0n; shift < 70n; shift += 7n) {
    const byte = data[at++];
    if (byte === undefined) throw new Error("the file ends within a field");
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return [Number(value), at];
  }
  throw new Error("a number is too long");
}

// The fields of a protobuf message: [number, kind, start, end] of each.
function* fields(data) {
  for (let at = 0; at < data.length; ) {
    let tag, length;
    [tag, at] = varint(data, at);
    const kind = tag & 7;
    if (kind === 2) [length, at] = varint(data, at);
    else if (kind === 0) length = varint(data, at)[1] - at;
    else length = { 1: 8, 5: 4 }[kind];
    if (!(at + length <= data.length)) throw new Error("a field is longer than the file");
    yield [tag >>> 3, kind, at, at + length];
    at += length;
  }
}

function readMetadata(file) {
  const digest = createHash("sha256").update(file.subarray(0, file.length - DIGEST)).digest("hex");
  if (file.subarray(-64).toString("ascii") !== digest) throw new Error("the file does not match its digest");
  for (const [number, kind, start, end] of fields(file)) {
    if (number !== 14 || kind !== 2) continue;
    const entry = file.subarray(start, end);
    const parts = {};
    for (const [part, , begin, stop] of fields(entry)) parts[part] = entry.subarray(begin, stop);
    if (parts[1].toString() === "brainkit") return JSON.parse(parts[2].toString("ascii"));
  }
  throw new Error("no brainkit metadata: not an encoder file");
}

// Arrays of 32-bit integers: base64 of a zlib stream of little-endian bytes.
function int32s(packed) {
  if (packed.dtype !== "<i4") throw new Error(`expected <i4, found ${packed.dtype}`);
  const count = packed.shape.reduce((product, n) => product * n, 1);
  const raw = inflateSync(Buffer.from(packed.data, "base64"), { maxOutputLength: 4 * count + 1 });
  return Array.from({ length: count }, (_, k) => raw.readInt32LE(4 * k));
}

const [encoder, images, side, out] = process.argv.slice(2);
const metadata = readMetadata(readFileSync(encoder));
const ort = require("onnxruntime-node");
const session = await ort.InferenceSession.create(encoder);
const pixels = new Uint8Array(readFileSync(images));
const shape = [pixels.length / (side * side * 3), Number(side), Number(side), 3];
const { fmri } = await session.run({ images: new ort.Tensor("uint8", pixels, shape) }, ["fmri"]);
writeFileSync(out, Buffer.from(fmri.data.buffer, fmri.data.byteOffset, fmri.data.byteLength));
console.log(
  JSON.stringify({
    shape: fmri.dims,
    space: metadata.space,
    vertices: int32s(metadata.vertices),
    rois: Object.fromEntries(Object.entries(metadata.rois).map(([name, packed]) => [name, int32s(packed)])),
    note: metadata.note,
  }),
);
