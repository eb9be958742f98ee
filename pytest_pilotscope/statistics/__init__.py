"""Figures of a record: pairs, ratios and their intervals, accuracy, summaries."""
