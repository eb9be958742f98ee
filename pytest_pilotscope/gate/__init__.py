"""The gate: it decides if two runs are comparable and if one is a regression, and calibrates its limits on a machine's noise."""
