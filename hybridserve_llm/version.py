"""Hold the version of the project, where every part may import it."""

__version__ = "0.1.0"
