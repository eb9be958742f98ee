"""Knob tuning: the space of settings, the optimizer, the trials, and the database it prepares."""
