"""What the `pilotscope` command does; `cli.py` says how it is typed. Nothing heavy is imported before it is needed."""
