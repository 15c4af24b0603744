// An outline's segment as a strip of constant width on the screen.
layout(location = 0) in vec4 from0;
layout(location = 1) in vec4 from1;
layout(location = 2) in vec4 from2;
layout(location = 3) in vec4 from3;
layout(location = 4) in vec4 to0;
layout(location = 5) in vec4 to1;
layout(location = 6) in vec4 to2;
layout(location = 7) in vec4 to3;
layout(location = 8) in vec2 corner; // along 0 .. 1, across -1 .. 1
uniform vec4 blend;
uniform float unit;
uniform mat4 model;
uniform mat4 lens;
uniform vec2 pixel; // of a CSS pixel, in clip space
uniform float width;
uniform float lift; // mm towards the viewer, so that the surface does not hide it
uniform float flatness;

vec4 place(vec4 a, vec4 b, vec4 c, vec4 d) {
  vec3 mixed = blend.x * a.xyz + blend.y * b.xyz + blend.z * c.xyz + blend.w * d.xyz;
  return lens * (model * vec4(mixed * unit, 1.0) + vec4(0.0, 0.0, lift, 0.0));
}

void main() {
  vec4 from = place(from0, from1, from2, from3);
  vec4 to = place(to0, to1, to2, to3);
  vec2 along = (to.xy / to.w - from.xy / from.w) / pixel;
  float length_ = max(length(along), 1e-4);
  along /= length_;
  vec2 across = vec2(-along.y, along.x);
  vec4 end = corner.x < 0.5 ? from : to;
  // Half a width beyond its ends, so that segments join.
  vec2 offset = across * corner.y + along * (corner.x < 0.5 ? -0.6 : 0.6);
  gl_Position = end + vec4(offset * pixel * width * 0.5 * end.w, 0.0, 0.0);
  if (flatness > 0.0 && from0.w < 0.5) gl_Position = vec4(2.0, 2.0, 2.0, 1.0); // it spans a cut
}
