"""The growth of time and memory with data, queries, relations, samples and processes."""
