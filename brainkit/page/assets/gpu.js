// WebGL2: programs, buffers, textures and the targets that are drawn to.

const CORNERS = [[0, -1], [1, -1], [0, 1], [1, 1]]; // of a segment: along 0 .. 1, across -1 .. 1
const TEXTURE_WIDTH = 1024;

function openGpu(canvas) {
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, powerPreference: "high-performance" });
  if (!gl) throw new Error("This browser does not offer WebGL2, which draws the turning cortex.");
  if (gl.getParameter(gl.MAX_VERTEX_TEXTURE_IMAGE_UNITS) < 2) throw new Error("This device's WebGL2 reads no textures in vertices.");
  return gl;
}

/** Whether the processor does the work of a graphics card. */
function isSoftware(gl) {
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  return Boolean(info) && /swiftshader|llvmpipe|softpipe|software|basic render/i.test(gl.getParameter(info.UNMASKED_RENDERER_WEBGL));
}

const SHADER_HEAD = ["#version 300 es", "precision highp float;", "precision highp int;", "precision highp sampler2D;"];

/** A program of `name`.vert and `name`.frag; `kind` and `fast` choose the variant of the surface's. */
function compile(gl, name, kind, fast) {
  const textOf = (id) => find(id).textContent;
  const shaders = ["vert", "frag"].map((part) => {
    const shader = gl.createShader(part === "vert" ? gl.VERTEX_SHADER : gl.FRAGMENT_SHADER);
    const variant = name === "surface" ? [`#define KIND ${kind}`, `#define FAST ${Number(fast)}`, textOf("shade.glsl")] : [];
    gl.shaderSource(shader, [...SHADER_HEAD, ...variant, textOf(`${name}.${part}`)].join("\n"));
    gl.compileShader(shader);
    return shader;
  });
  const program = gl.createProgram();
  shaders.forEach((shader) => gl.attachShader(program, shader));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    const why = shaders.map((shader) => gl.getShaderInfoLog(shader)).join(" ") + gl.getProgramInfoLog(program);
    throw new Error(`The graphics driver refused a shader (${name}): ${why}`);
  }
  const places = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const { name: uniform } = gl.getActiveUniform(program, i);
    places[uniform] = gl.getUniformLocation(program, uniform);
  }
  return { program, places };
}

function buffer(gl, data, target = gl.ARRAY_BUFFER) {
  const made = gl.createBuffer();
  gl.bindBuffer(target, made);
  gl.bufferData(target, data, gl.STATIC_DRAW);
  return made;
}

/** The buffers of a hemisphere: one vertex array for the surface, one for its outlines. */
function uploadHemisphere(gl, hemisphere, shapes, lines) {
  const surface = gl.createVertexArray();
  gl.bindVertexArray(surface);
  shapes.forEach((shape, i) => {
    attribute(gl, i, buffer(gl, hemisphere.points[shape]), 3, gl.SHORT, 6);
    attribute(gl, 4 + i, buffer(gl, hemisphere.normals[shape]), 3, gl.BYTE, 4);
  });
  attribute(gl, 8, buffer(gl, hemisphere.curvature), 1, gl.BYTE, 1);
  attribute(gl, 9, buffer(gl, hemisphere.slots), 1, gl.UNSIGNED_BYTE, 1);
  const levels = hemisphere.lists.map(({ faces, flat }) => {
    const short = hemisphere.count < 65536;
    const indices = buffer(gl, short ? Uint16Array.from(faces) : faces, gl.ELEMENT_ARRAY_BUFFER);
    return { indices, count: faces.length, flat, type: short ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT };
  });
  const outline = gl.createVertexArray();
  gl.bindVertexArray(outline);
  // Four corners a segment. (Instances would be shorter, and slow where the processor draws.)
  const ends = buffer(gl, repeated(lineBuffer(lines, hemisphere, shapes), 8 * shapes.length, 4));
  for (let end = 0; end < 2; end++) {
    shapes.forEach((_, i) => attribute(gl, 4 * end + i, ends, 4, gl.SHORT, 16 * shapes.length, 8 * (end * shapes.length + i)));
  }
  attribute(gl, 8, buffer(gl, Int8Array.from(lines.flatMap(() => CORNERS.flat()))), 2, gl.BYTE, 2);
  const triangles = lines.flatMap((_, i) => [0, 1, 2, 2, 1, 3].map((corner) => 4 * i + corner));
  buffer(gl, Uint32Array.from(triangles), gl.ELEMENT_ARRAY_BUFFER);
  gl.bindVertexArray(null);
  return { surface, levels, outline, lineCorners: triangles.length };
}

/** Each run of `width` numbers `times` times. */
function repeated(numbers, width, times) {
  const all = new numbers.constructor(numbers.length * times);
  for (let at = 0; at < numbers.length; at += width) {
    for (let i = 0; i < times; i++) all.set(numbers.subarray(at, at + width), at * times + i * width);
  }
  return all;
}

function attribute(gl, place, source, size, type, stride, offset = 0) {
  gl.bindBuffer(gl.ARRAY_BUFFER, source);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, type, false, stride, offset);
}

function texture(gl, filter) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, filter);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  return made;
}

function uploadValues(gl, made, data) {
  const height = Math.ceil(data.length / 4 / TEXTURE_WIDTH);
  const padded = new Float32Array(4 * TEXTURE_WIDTH * height);
  padded.set(data);
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, TEXTURE_WIDTH, height, 0, gl.RGBA, gl.FLOAT, padded);
}

function uploadTable(gl, table, width, height) {
  const made = texture(gl, gl.LINEAR);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, width, height, 0, gl.RGB, gl.UNSIGNED_BYTE, table);
  return made;
}

/** A picture to draw to, of `samples` a pixel (0: one), and a texture to read it from. */
function makeTarget(gl, width, height, samples) {
  const target = { width, height, samples, draw: gl.createFramebuffer(), read: gl.createFramebuffer(), buffers: [] };
  target.picture = texture(gl, gl.LINEAR);
  gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, width, height);
  gl.bindFramebuffer(gl.FRAMEBUFFER, target.read);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.picture, 0);
  const store = (format, attachment) => {
    const made = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, made);
    gl.renderbufferStorageMultisample(gl.RENDERBUFFER, samples, format, width, height);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, attachment, gl.RENDERBUFFER, made);
    target.buffers.push(made);
  };
  if (samples) {
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.draw);
    store(gl.RGBA8, gl.COLOR_ATTACHMENT0);
  } else target.draw = target.read;
  store(gl.DEPTH_COMPONENT24, gl.DEPTH_ATTACHMENT);
  return target;
}

function freeTarget(gl, target) {
  target.buffers.forEach((each) => gl.deleteRenderbuffer(each));
  gl.deleteTexture(target.picture);
  gl.deleteFramebuffer(target.read);
  if (target.samples) gl.deleteFramebuffer(target.draw);
}

/** Bring the samples together; afterwards `read` and `picture` hold the pixels. */
function resolve(gl, target) {
  if (!target.samples) return;
  gl.bindFramebuffer(gl.READ_FRAMEBUFFER, target.draw);
  gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, target.read);
  const { width, height } = target;
  gl.blitFramebuffer(0, 0, width, height, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.NEAREST);
}
