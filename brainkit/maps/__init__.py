"""Maps on the flattened cortex. README.md: which file draws what."""
