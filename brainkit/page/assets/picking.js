// Which vertex is at a place on the stage.

/** The picker keeps the id buffer of the last view. */
function makePicker(renderer, brain) {
  let ids = null;
  let frame = null;

  function at(current, x, y) {
    if (!ids || frame !== current) {
      ids = renderer.drawIds(current);
      frame = current;
    }
    const corner = renderer.idAt(ids, x, y);
    return corner < 0 ? -1 : nearest(corner, x, y);
  }

  /** Of a corner of the face at this place and the vertices around it, the nearest one. */
  function nearest(corner, x, y) {
    const hemisphere = hemisphereOf(brain, corner);
    const around = [corner - hemisphere.first, ...neighbours(hemisphere.mesh, corner - hemisphere.first)];
    let [best, least] = [corner, Infinity];
    for (const vertex of around) {
      if (frame.flat > 0 && !hemisphere.vertexOnFlat[vertex]) continue;
      const place = project(frame, brain, vertex + hemisphere.first);
      const distance = Math.hypot(place.x - x, place.y - y) + (place.facing < 0 ? 1e3 : 0);
      if (distance < least) [best, least] = [vertex + hemisphere.first, distance];
    }
    return best;
  }

  return { at };
}
