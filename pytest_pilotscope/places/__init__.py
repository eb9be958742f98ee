"""The folders of the cache, the account that owns them, and connection strings."""
