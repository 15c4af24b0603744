"""How accurate an encoder is on held-out images, and how well it recovers planted selectors."""
