"""What measurements share: images, single runs, spreads, rows of figures, charts."""
