"""The gate: which runs are comparable, what is a regression, how a machine's noise is calibrated."""
