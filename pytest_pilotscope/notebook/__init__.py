"""Measuring from a notebook or a script, and records as pandas frames."""
