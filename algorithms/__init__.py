"""The built-in algorithms, and preset schedulers for use without pytest."""
