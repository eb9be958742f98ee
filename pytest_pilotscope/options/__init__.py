"""Every option, declared once with name, default, help and check, for the command line, the ini file and Python."""
