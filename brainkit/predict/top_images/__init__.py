"""The images that drive a region most."""
