"""Tests of servers and sessions; they start the embedded PostgreSQL."""
