"""Tokens of images, computed once and kept on disk."""
