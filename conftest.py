"""Loads the plugin for this repository; nothing else."""

pytest_plugins = ["pytest_pilotscope.plugin", "pytester"]
