"""One run, one comparison, one invocation; none of it knows pytest."""
