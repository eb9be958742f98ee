"""The tests that `pytest benchmarks` runs: workloads by algorithm and dataset; and the speed of the suite itself."""
