// Which vertex is where: one corner of each face; the page then finds the nearest of those around it.
layout(location = 0) in vec3 point0;
layout(location = 1) in vec3 point1;
layout(location = 2) in vec3 point2;
layout(location = 3) in vec3 point3;
uniform vec4 blend;
uniform float unit;
uniform mat4 model;
uniform mat4 lens;
uniform int first;
flat out int id;
void main() {
  vec3 mixed = blend.x * point0 + blend.y * point1 + blend.z * point2 + blend.w * point3;
  gl_Position = lens * (model * vec4(mixed * unit, 1.0));
  id = first + gl_VertexID + 1;
}
