"""Methods over channels, bandwidths, prealloc, dirty rates and images, on this host."""
