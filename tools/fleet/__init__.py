"""Plans for `tools.evacuate`: the example with every key, a generator with seeds, a rack of namespaces."""
