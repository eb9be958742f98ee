"""True cardinalities of every subplan of a query."""
