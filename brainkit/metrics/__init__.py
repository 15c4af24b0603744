"""Measures on arrays: correlation, noise ceilings, intervals, tests."""
