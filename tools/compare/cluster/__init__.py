"""A comparison over many hosts: Dask's workers run the points, one at a time on each machine."""
