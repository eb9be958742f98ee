"""Estimates from a file: any published method is judged without its code."""
