"""The C library that makes a stock PostgreSQL steerable, and the code that builds it."""
