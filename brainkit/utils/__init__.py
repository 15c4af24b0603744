"""Small tools that every other folder may use: files, locks, memory, progress."""
