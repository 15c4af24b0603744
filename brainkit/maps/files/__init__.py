"""Maps as files for other tools."""
