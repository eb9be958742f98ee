"""The contract of an algorithm, and the data that it is given to learn from."""
