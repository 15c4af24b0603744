"""Maps in pycortex: a subject, quickflat figures, the WebGL viewer as one file, datasets. README.md says how."""
