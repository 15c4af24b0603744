// Names of regions and hemispheres, and the ring around the picked vertex, over the cortex.

const LABEL = 12;

const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Draw everything of a pane that is text; the pane's upper left corner is at (left, top). */
function drawLabels(context, brain, { frame, left, text: { labels, selected, caption, captionTop, colours } }, top = 0) {
  const drawn = [];
  context.save();
  context.translate(left, top);
  context.beginPath();
  context.rect(0, 0, frame.width, frame.height);
  context.clip();
  hemisphereNames(context, brain, frame, colours, drawn);
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  if (labels) for (const label of labels) drawLabel(context, brain, frame, label, drawn);
  if (selected >= 0) drawRing(context, project(frame, brain, selected), colours);
  context.globalAlpha = 1;
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  if (caption) write(context, capitalised(caption), 24, captionTop, frame.width - 48, colours.ink, 14, 600);
  context.restore();
}

function drawLabel(context, brain, frame, label, drawn) {
  const place = project(frame, brain, label.vertex + label.hemisphere.first);
  // It fades as its region turns away, and behind the other hemisphere.
  const alpha = smooth(clamp((place.facing - 0.2) / 0.15, 0, 1)) * (1 - place.hidden);
  if (alpha < 0.04 || (frame.flat > 0 && !label.hemisphere.vertexOnFlat[label.vertex])) return;
  const half = measure(context, label.name, LABEL, 600) / 2 + 3;
  const box = [place.x - half, place.y - 9, place.x + half, place.y + 9];
  if (box[0] < 0 || box[2] > frame.width || drawn.some((other) => overlap(box, other))) return;
  drawn.push(box);
  context.globalAlpha = alpha;
  context.strokeStyle = "#20242a";
  context.lineWidth = 3.2;
  context.strokeText(label.name, place.x, place.y);
  context.fillStyle = "#ffffff";
  context.fillText(label.name, place.x, place.y);
}

const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

/** "left" and "right" above the hemispheres, if they do not overlap. */
function hemisphereNames(context, brain, frame, colours, drawn) {
  const places = frame.models.map((model, i) => {
    const half = [0, 1, 2].map((k) => brain.shapes.reduce((sum, shape, s) => sum + frame.blend[s] * brain.hemispheres[i].halves[shape][k], 0));
    const [across, tall] = [0, 1].map((row) => Math.hypot(...[0, 1, 2].map((k) => model[4 * k + row] * half[k])));
    const { dataBox, side } = brain.hemispheres[i];
    let top = [model[12], model[13] + tall, model[14]];
    if (frame.flat > 0 && dataBox && dataBox[0][0] <= dataBox[0][1]) {
      // Of a flatmap, above the part that has data.
      const edge = transform(model, 0, (side * (dataBox[0][0] + dataBox[0][1])) / 2, dataBox[1][1]);
      top = top.map((part, k) => mix(part, edge[k], frame.flat));
    }
    const clip = transform(frame.lens, ...top);
    return { x: ((clip[0] / clip[3] + 1) / 2) * frame.width, y: ((1 - clip[1] / clip[3]) / 2) * frame.height, across: across * frame.scale };
  });
  const apart = (Math.abs(places[0].x - places[1].x) - 0.75 * (places[0].across + places[1].across)) / 40;
  if (apart <= 0 && !frame.flat) return;
  context.textAlign = "center";
  context.globalAlpha = Math.max(clamp(apart, 0, 1), frame.flat);
  places.forEach(({ x, y }, i) => {
    const text = frame.width > 520 ? `${brain.hemispheres[i].name} hemisphere` : brain.hemispheres[i].name;
    const half = measure(context, text, 12.5) / 2;
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = colours.ground;
    context.strokeText(text, x, y - 12);
    context.fillStyle = frame.flat > 0.5 ? colours.ink : colours.faint;
    context.fillText(text, x, y - 12);
    drawn.push([x - half, y - 26, x + half, y - 6]);
  });
  context.globalAlpha = 1;
}

function drawRing(context, place, colours) {
  const seen = place.facing > -0.05 && place.hidden < 0.5;
  context.globalAlpha = seen ? 1 : 0.45;
  context.setLineDash(seen ? [] : [3, 3]);
  for (const [width, ink] of [[5, "rgba(20, 22, 26, 0.85)"], [2.2, "#ffffff"]]) {
    context.strokeStyle = ink;
    context.lineWidth = width;
    context.beginPath();
    context.arc(place.x, place.y, 8, 0, 2 * Math.PI);
    context.stroke();
  }
  context.setLineDash([]);
}
