"""The protocols of an algorithm, and the data that it learns from."""
