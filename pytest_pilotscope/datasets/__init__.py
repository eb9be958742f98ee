"""Generated and user-supplied data, their workloads, and the cache of loaded data directories."""
