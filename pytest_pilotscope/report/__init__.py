"""Tables, plots and pages of records."""
