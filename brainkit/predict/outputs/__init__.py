"""The formats that predictions are written in."""
