"""The migration: carries guest RAM from a source image to a destination mapping."""
