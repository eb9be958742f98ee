"""Parts of algorithms that learn from timed plans: collecting and timing them, their features, tree convolution, and its training."""
