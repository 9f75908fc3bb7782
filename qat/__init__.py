"""Intel QAT through libqatzip, by cffi. Imports nothing else of this project."""
