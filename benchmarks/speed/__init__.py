"""Speed of the suite's own parts, as ratios to the known ways of doing the same."""
