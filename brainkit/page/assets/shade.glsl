// Colours of values and of the cortex, and its light: used in fragments, or in vertices where speed matters more.
uniform sampler2D colours;
uniform vec2 range; // values of the ends of the colour table
uniform vec4 below; // colour of values below, if its alpha is 1
uniform vec2 greys; // gyri, sulci
uniform float flatness;

#if KIND == 0
vec3 colourOf(vec2 value) {
  if (below.a > 0.0 && value.x < range.x) return below.rgb;
  float share = clamp((value.x - range.x) / (range.y - range.x), 0.0, 1.0);
  return textureLod(colours, vec2((share * 255.0 + 0.5) / 256.0, 0.5), 0.0).rgb;
}
#elif KIND == 1
vec3 colourOf(vec2 value) {
  return texelFetch(colours, ivec2(int(value.x) >> 8, 0), 0).rgb;
}
#else
vec3 colourOf(vec2 value) {
  float size = float(textureSize(colours, 0).x);
  return textureLod(colours, ((clamp(value, -1.0, 1.0) + 1.0) * 0.5 * (size - 1.0) + 0.5) / size, 0.0).rgb;
}
#endif

vec3 cortexOf(float curvature) {
  return vec3(mix(greys.x, greys.y, 0.5 + 0.5 * tanh(curvature * 10.0)));
}

float lightOn(vec3 facing) {
  float key = dot(facing, vec3(-0.35, 0.45, 0.82));
  float rim = 1.0 - clamp(facing.z, 0.0, 1.0);
  float light = (0.56 + 0.44 * smoothstep(-0.35, 0.95, key)) * (1.0 - 0.22 * rim * rim * rim);
  return mix(light, 1.0, flatness);
}

// Shadows are weak where there are values, whose colours are read off the bar: as maps/canvas.py has it.
vec3 lit(vec3 colour, float alpha, vec3 facing) {
  return colour * mix(lightOn(facing), 1.0, 0.7 * alpha);
}
