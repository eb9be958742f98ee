"""Folders of the cache, and the account that owns them."""
