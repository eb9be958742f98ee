"""SQL for production from a run: the changes and hints that made queries faster beyond noise."""
