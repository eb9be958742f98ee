"""Index selection: Extend, its questions to the planner, and the prepared database."""
