"""The `pilotscope` command: `cli.py` has its syntax, the other files its work. Heavy libraries are imported when needed."""
