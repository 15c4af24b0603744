"""Experiments on predictions. README.md: what there is, and how to add one."""
