"""Every choice, declared once: its name, default, help and check; from the command line and the ini file, and from Python."""
