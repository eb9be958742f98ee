"""Index selection: Extend, what it asks the planner, and the database it prepares."""
