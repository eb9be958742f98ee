"""A chooser of planner settings for each query: Bao's arms and tree convolution, LimeQO's completed matrix."""
