// A point of the surface between its shapes, and the map's value there.
layout(location = 0) in vec3 point0;
layout(location = 1) in vec3 point1;
layout(location = 2) in vec3 point2;
layout(location = 3) in vec3 point3;
layout(location = 4) in vec3 normal0;
layout(location = 5) in vec3 normal1;
layout(location = 6) in vec3 normal2;
layout(location = 7) in vec3 normal3;
layout(location = 8) in float curvature;
layout(location = 9) in float slot;
uniform vec4 blend;
uniform float unit;
uniform mat4 model;
uniform mat4 lens;
uniform int first;
uniform sampler2D values;
uniform sampler2D limiting;
uniform int measure; // what of `limiting` is compared with the threshold; below 0: nothing
uniform float threshold;
uniform float pale; // opacity of what may be chance
uniform float faintest; // opacity of a vertex without any strength
#if FAST == 1
out vec3 shaded;
#else
out vec3 normal;
out vec3 ground; // curvature, amount that the threshold is on, strength; the latter two times known
out vec4 datum; // value or x, y, known, reliable; all times known
#if KIND == 1
out vec4 corners0;
out vec4 corners1;
out vec4 classes0;
out vec4 classes1;
out vec4 shares0;
out vec4 shares1;
#endif
#endif

vec4 texelOf(sampler2D table, int index) {
  int width = textureSize(table, 0).x;
  return texelFetch(table, ivec2(index % width, index / width), 0);
}

void main() {
  vec3 mixed = blend.x * point0 + blend.y * point1 + blend.z * point2 + blend.w * point3;
  vec3 outwards = mat3(model) * (blend.x * normal0 + blend.y * normal1 + blend.z * normal2 + blend.w * normal3);
  gl_Position = lens * (model * vec4(mixed * unit, 1.0));
  vec4 here = texelOf(values, first + gl_VertexID);
  float known = here.z, reliable = step(2.0, here.w), amount = 0.0;
  float strength = mix(faintest, 1.0, here.w - 2.0 * reliable);
  if (measure >= 0) {
    vec4 limit = texelOf(limiting, first + gl_VertexID);
    amount = measure == 0 ? limit.x : measure == 1 ? abs(limit.x) : measure == 2 ? limit.w - 2.0 * step(2.0, limit.w) : length(limit.xy);
    if (limit.z == 0.0) amount = -1e4;
  }
#if FAST == 1
  float alpha = known * strength * mix(pale, 1.0, reliable) * (measure < 0 || amount >= threshold ? 1.0 : 0.0);
  shaded = lit(mix(cortexOf(curvature / 127.0), colourOf(here.xy), alpha), alpha, normalize(outwards));
#else
  normal = outwards;
  ground = vec3(curvature / 127.0, amount * known, strength * known);
#if KIND == 1
  datum = vec4(0.0, 0.0, 1.0, reliable) * known;
  // The corners of a face have different slots, so the fragment can tell their weights, classes and shares apart.
  vec4 low = vec4(equal(vec4(slot), vec4(0.0, 1.0, 2.0, 3.0))) * known;
  vec4 high = vec4(equal(vec4(slot), vec4(4.0, 5.0, 6.0, 7.0))) * known;
  corners0 = low;
  corners1 = high;
  classes0 = low * here.x;
  classes1 = high * here.x;
  shares0 = low * here.y;
  shares1 = high * here.y;
#else
  datum = vec4(here.xy, 1.0, reliable) * known;
#endif
#endif
}
