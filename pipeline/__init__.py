"""The migration: carries guest RAM from a source image to a destination mapping."""

__version__ = "0.2.0.dev0"
"""The project's one version. setuptools reads it here without importing, so this file imports nothing."""
