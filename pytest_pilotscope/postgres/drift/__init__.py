"""Change the data of a database of ours as production changes it, such that every key and every reference still holds."""
