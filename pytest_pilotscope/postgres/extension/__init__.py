"""The C extension for stock PostgreSQL, and the code that builds and loads it."""
