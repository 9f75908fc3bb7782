"""The guest's RAM, who writes to it, and how its dirty pages are found.

This package imports nothing else of this project.
"""
