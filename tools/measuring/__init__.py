"""What measurements share: images, single runs, spreads, tables of figures, charts."""
