// Draws the brain with a map, and keeps the frame rate: less detail while it moves, full detail at rest.

// From best to fastest: share of the screen's pixels across, samples a pixel, how many faces of a hemisphere at most (if
// the mesh has coarser levels), whether colours and light are those of the vertices, mixed between them; and from how
// many ms a frame on the next one is taken.
const QUALITIES = [
  { share: 1, samples: 4, faces: Infinity, fast: false, slow: 40 },
  { share: 1, samples: 0, faces: Infinity, fast: false, slow: 40 },
  { share: 1, samples: 0, faces: 81920, fast: true, slow: 40 },
  { share: 0.75, samples: 0, faces: 20480, fast: true, slow: 40 },
  { share: 0.5, samples: 0, faces: 20480, fast: true, slow: 60 },
  { share: 0.5, samples: 0, faces: 5120, fast: true, slow: Infinity },
];
const QUICK = 20; // ms a frame that allow more detail

function makeRenderer(canvas, brain, lines, opacity) {
  const gl = openGpu(canvas);
  const software = isSoftware(gl);
  const parts = brain.hemispheres.map((hemisphere, i) => uploadHemisphere(gl, hemisphere, brain.shapes, lines[i]));
  const programs = new Map();
  const program = (name, kind, fast) => {
    const key = `${name} ${kind} ${fast}`;
    if (!programs.has(key)) programs.set(key, compile(gl, name, kind, fast));
    const made = programs.get(key);
    gl.useProgram(made.program);
    return made.places;
  };
  const textures = new Map(); // of maps
  const targets = new Map();
  const rest = software && brain.count > 100000 ? 1 : 0;
  let quality = software ? 2 : 0;
  let [quick, slow] = [0, 0]; // frames in a row

  function textureOf(map) {
    let made = textures.get(map);
    if (!made) {
      const side = Math.sqrt(map.table.length / 3);
      const [width, height] = map.kind === "location" ? [side, side] : [map.table.length / 3, 1];
      made = { values: texture(gl, gl.NEAREST), table: uploadTable(gl, map.table, width, height), photograph: -2 };
      textures.set(map, made);
    }
    if (made.photograph !== (map.photograph ?? -1)) {
      made.photograph = map.photograph ?? -1;
      uploadValues(gl, made.values, texels(map, brain));
    }
    return made;
  }

  function target(purpose, width, height, samples) {
    const known = targets.get(purpose);
    if (known && known.width === width && known.height === height && known.samples === samples) return known;
    if (known) freeTarget(gl, known);
    const made = makeTarget(gl, width, height, samples);
    targets.set(purpose, made);
    return made;
  }

  function setFrame(places, frame, i) {
    const blend = [...frame.blend, 0, 0, 0].slice(0, 4);
    gl.uniform4fv(places.blend, blend);
    gl.uniform1f(places.unit, brain.step);
    gl.uniformMatrix4fv(places.model, false, frame.models[i]);
    gl.uniformMatrix4fv(places.lens, false, frame.lens);
    if (places.first) gl.uniform1i(places.first, brain.hemispheres[i].first);
    if (places.flatness) gl.uniform1f(places.flatness, frame.flat);
  }

  function drawFaces(part, frame, faces) {
    const level = part.levels.find(({ count }) => count <= 3 * faces) || part.levels[part.levels.length - 1];
    gl.bindVertexArray(part.surface);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, level.indices);
    // The back of a closed surface is never seen.
    if (frame.flat > 0) gl.disable(gl.CULL_FACE);
    else gl.enable(gl.CULL_FACE);
    gl.drawElements(gl.TRIANGLES, frame.flat > 0 ? level.flat : level.count, level.type, 0);
  }

  function drawSurface(frame, pane, { faces, fast }) {
    const { map, threshold, hideChance, greys } = pane;
    const places = program("surface", KINDS[map.kind], fast);
    const own = textureOf(map);
    [own.values, own.table, threshold ? textureOf(threshold.map).values : own.values].forEach((each, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, each);
    });
    gl.uniform1i(places.values, 0);
    gl.uniform1i(places.colours, 1);
    gl.uniform1i(places.limiting, 2);
    gl.uniform2f(places.range, map.low ?? 0, map.high ?? 1);
    gl.uniform4fv(places.below, map.below ? hexColour(map.below) : [0, 0, 0, 0]);
    gl.uniform1i(places.measure, threshold ? threshold.measure : -1);
    gl.uniform1f(places.threshold, threshold ? threshold.value : 0);
    gl.uniform1f(places.pale, hideChance ? 0 : opacity.chance);
    gl.uniform1f(places.faintest, opacity.faintest);
    gl.uniform2fv(places.greys, greys);
    parts.forEach((part, i) => {
      setFrame(places, frame, i);
      drawFaces(part, frame, faces);
    });
  }

  function drawOutlines(frame) {
    const places = program("line");
    gl.disable(gl.CULL_FACE);
    gl.depthMask(false); // segments do not hide each other
    gl.uniform2f(places.pixel, 2 / frame.width, 2 / frame.height);
    for (const [width, lift, ink] of [[3.4, 0.9, [0.125, 0.14, 0.165, 1]], [1.7, 1.0, [1, 1, 1, 1]]]) {
      gl.uniform1f(places.width, width);
      gl.uniform1f(places.lift, lift);
      gl.uniform4fv(places.ink, ink);
      parts.forEach((part, i) => {
        if (!part.lineCorners) return;
        setFrame(places, frame, i);
        gl.bindVertexArray(part.outline);
        gl.drawElements(gl.TRIANGLES, part.lineCorners, gl.UNSIGNED_INT, 0);
      });
    }
    gl.depthMask(true);
  }

  /** Draw the panes, each {frame, map, left, threshold, hideChance, greys, ground, outlines}, `density` pixels a CSS pixel. */
  function drawTo(goal, panes, density, chosen) {
    gl.bindFramebuffer(gl.FRAMEBUFFER, goal.draw);
    gl.viewport(0, 0, goal.width, goal.height);
    gl.clearColor(...hexColour(panes[0].ground));
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    for (const pane of panes) {
      const { frame } = pane;
      gl.viewport(Math.round(pane.left * density), 0, Math.round(frame.width * density), goal.height);
      drawSurface(frame, pane, chosen);
      if (pane.outlines) drawOutlines(frame);
    }
    gl.disable(gl.DEPTH_TEST);
    resolve(gl, goal);
  }

  function draw(panes, width, height, density, moving) {
    const chosen = QUALITIES[moving ? quality : rest];
    const { share, samples } = chosen;
    [canvas.width, canvas.height] = sizeIfNew(canvas, Math.round(width * density), Math.round(height * density));
    const scaled = density * share;
    const goal = target("screen", Math.max(1, Math.round(width * scaled)), Math.max(1, Math.round(height * scaled)), samples);
    drawTo(goal, panes, scaled, chosen);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.disable(gl.CULL_FACE);
    const places = program("copy");
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, goal.picture);
    gl.uniform1i(places.picture, 0);
    gl.bindVertexArray(null);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /** Take note of the time that a frame took while moving, to choose the detail of the next ones. */
  function tell(milliseconds) {
    quick = milliseconds < QUICK ? quick + 1 : 0;
    slow = milliseconds > QUALITIES[quality].slow ? slow + 1 : 0;
    if (slow > 1) [quality, slow] = [quality + 1, 0];
    else if (quick > 40 && quality > 0 && !software) [quality, quick] = [quality - 1, 0];
  }

  /** The panes as an image at `density`. */
  function picture(panes, width, height, density) {
    const goal = target("picture", Math.round(width * density), Math.round(height * density), 4);
    drawTo(goal, panes, density, QUALITIES[0]);
    const pixels = readPixels(goal, 0, 0, goal.width, goal.height);
    const image = new ImageData(goal.width, goal.height);
    const stride = 4 * goal.width;
    for (let y = 0; y < goal.height; y++) image.data.set(pixels.subarray(stride * y, stride * (y + 1)), stride * (goal.height - 1 - y));
    return image;
  }

  /** What is drawn while it moves, as scripts are told. */
  function detail() {
    const { share, samples, faces, fast } = QUALITIES[quality];
    return { software, share, samples, faces: Number.isFinite(faces) ? faces : null, fast };
  }

  function readPixels(goal, x, y, width, height) {
    const pixels = new Uint8Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, goal.read);
    gl.readPixels(x, y, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    return pixels;
  }

  /** Draw the id buffer: of each pixel, one corner of its face. */
  function drawIds(frame) {
    const goal = target("ids", Math.max(1, Math.round(frame.width)), Math.max(1, Math.round(frame.height)), 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, goal.draw);
    gl.viewport(0, 0, goal.width, goal.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const places = program("id");
    parts.forEach((part, i) => {
      setFrame(places, frame, i);
      drawFaces(part, frame, Infinity);
    });
    gl.disable(gl.DEPTH_TEST);
    return goal;
  }

  /** The id at a pixel of the id buffer; -1 beside the brain. */
  function idAt(goal, x, y) {
    const [column, row] = [clamp(Math.floor(x), 0, goal.width - 1), clamp(goal.height - 1 - Math.floor(y), 0, goal.height - 1)];
    const [low, middle, high] = readPixels(goal, column, row, 1, 1);
    return low + 256 * middle + 65536 * high - 1;
  }

  return { gl, software, draw, tell, picture, drawIds, idAt, detail };
}

function sizeIfNew(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return [canvas.width, canvas.height];
}

function hexColour(text) {
  const whole = parseInt(text.slice(1), 16);
  return [(whole >> 16) / 255, ((whole >> 8) & 255) / 255, (whole & 255) / 255, 1];
}
