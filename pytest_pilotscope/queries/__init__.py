"""Queries, templates and splits; the relations and joins that the planner, or the text of a plain query, says they have."""
