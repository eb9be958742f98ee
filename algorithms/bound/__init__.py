"""Upper bounds of cardinalities from degree sequences (Deeds et al., SafeBound, SIGMOD 2023)."""
