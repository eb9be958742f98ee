"""MSCN: cardinalities of all subplans of a query from a network over three sets (Kipf et al., CIDR 2019)."""
