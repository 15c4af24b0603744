"""What images are given as, and how they are read."""
