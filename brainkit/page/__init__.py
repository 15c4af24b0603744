"""Pages: one HTML file each, from which no request leaves."""
