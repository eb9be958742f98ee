"""One run, one comparison, one invocation. No file here imports pytest."""
