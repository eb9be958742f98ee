"""Gradient-boosted regression trees over simple features of a set of relations."""
