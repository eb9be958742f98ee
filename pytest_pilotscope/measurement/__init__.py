"""The paired, interleaved protocol: from sides and queries to results."""
