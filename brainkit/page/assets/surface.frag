// The map's colour over curvature, softly lit.
#if FAST == 1
in vec3 shaded;
out vec4 colour;

void main() {
  colour = vec4(shaded, 1.0);
}
#else
in vec3 normal;
in vec3 ground;
in vec4 datum;
#if KIND == 1
in vec4 corners0;
in vec4 corners1;
in vec4 classes0;
in vec4 classes1;
in vec4 shares0;
in vec4 shares1;
#endif
uniform float threshold;
uniform int measure;
uniform float pale; // opacity of what may be chance
out vec4 colour;

// A border where `distance` is 0, softened over a pixel.
float edge(float distance) {
  return clamp(distance / max(fwidth(distance), 1e-5) + 0.5, 0.0, 1.0);
}

#if KIND == 1
// Of each corner: its weight, its two classes, their shares. A class that no corner has first is not considered.
vec3 colourOfClasses() {
  vec3 weights;
  ivec3 firsts, seconds;
  vec3 firstShares, secondShares;
  int n = 0;
  for (int i = 0; i < 8 && n < 3; i++) {
    float weight = i < 4 ? corners0[i] : corners1[i - 4];
    if (weight < 1e-3) continue;
    int classes = int((i < 4 ? classes0[i] : classes1[i - 4]) / weight + 0.5);
    int shares = int((i < 4 ? shares0[i] : shares1[i - 4]) / weight + 0.5);
    weights[n] = weight;
    firsts[n] = classes >> 8;
    seconds[n] = classes & 255;
    firstShares[n] = float(shares >> 8);
    secondShares[n] = float(shares & 255);
    n++;
  }
  float best = -1.0, next = -1.0;
  int winner = 0, loser = 0;
  for (int i = 0; i < n; i++) {
    int mine = firsts[i];
    if (mine == winner && best >= 0.0 || mine == loser && next >= 0.0) continue;
    float total = 0.0;
    for (int k = 0; k < n; k++) {
      total += weights[k] * (firsts[k] == mine ? firstShares[k] : seconds[k] == mine ? secondShares[k] : 0.0);
    }
    if (total > best) {
      next = best;
      loser = winner;
      best = total;
      winner = mine;
    } else if (total > next) {
      next = total;
      loser = mine;
    }
  }
  vec3 colour = texelFetch(colours, ivec2(winner, 0), 0).rgb;
  if (next < 0.0) return colour;
  // A border is softened over a pixel.
  float lead = best - next;
  return mix(texelFetch(colours, ivec2(loser, 0), 0).rgb, colour, clamp(0.5 + lead / max(fwidth(lead), 1e-3), 0.0, 1.0));
}
#endif

void main() {
  float known = datum.z;
  float alpha = edge(known - 0.5);
  vec3 data = vec3(0.0);
  if (alpha > 0.0) {
#if KIND == 1
    data = colourOfClasses();
#else
    data = colourOf(datum.xy / known);
#endif
    alpha *= clamp(ground.z / known, 0.0, 1.0);
    // Halfway between a reliable vertex and another, within a third of the way; as maps/paint.py has it.
    alpha *= mix(pale, 1.0, clamp(3.0 * datum.w / known - 1.0, 0.0, 1.0));
    if (measure >= 0) alpha *= edge(ground.y / known - threshold);
  }
  vec3 facing = normalize(normal);
  colour = vec4(lit(mix(cortexOf(ground.x), data, alpha), alpha, gl_FrontFacing ? facing : -facing), 1.0);
}
#endif
