"""A run, from its settings to its results, and the run folder."""
