"""Lero: candidate plans from scaled estimates, ranked by a network over trees (Zhu et al., PVLDB 16(6), 2023)."""
