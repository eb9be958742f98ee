"""From a configuration to a server with a loaded dataset and its workload."""
