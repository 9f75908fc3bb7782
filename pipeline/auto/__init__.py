"""Method auto: chooses a method and level packet by packet."""
