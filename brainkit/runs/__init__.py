"""A run: from data to a run folder, and from there to encoder files and maps; README.md says what is where."""
