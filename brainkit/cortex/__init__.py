"""Cortical surfaces, volumes and their vertices."""
