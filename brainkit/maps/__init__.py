"""Brain maps: static figures, drawn without any download."""
