"""The only importer of psycopg2: servers, sessions, EXPLAIN, steering."""
