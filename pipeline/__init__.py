"""The migration: carries guest RAM from a source image to a destination mapping."""

__version__ = "0.2.0.dev0"
