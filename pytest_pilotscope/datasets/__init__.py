"""Generated, published and user-supplied data, and their workloads."""
