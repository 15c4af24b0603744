"""Experiments on an encoder."""
