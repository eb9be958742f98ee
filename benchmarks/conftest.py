"""`pytest benchmarks` measures databases; the speed of the suite's own parts is `pytest benchmarks/speed`."""

collect_ignore = ["speed"]
