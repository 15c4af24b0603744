flat in int id;
out vec4 colour;
void main() {
  colour = vec4(float(id & 255), float((id >> 8) & 255), float((id >> 16) & 255), 255.0) / 255.0;
}
