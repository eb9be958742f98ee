"""The record of a run: its lines as values, reading and writing, and its published schema."""
