"""The version, for everybody: setuptools, the command line, files that say what made them."""

__version__ = "0.1.0"
