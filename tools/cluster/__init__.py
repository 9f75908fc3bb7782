"""The way to a Dask cluster, for all that spreads its work over one."""
