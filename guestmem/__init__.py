"""The guest's RAM, who writes to it, and how its dirty pages are found.

Imports nothing else of this project.
"""
