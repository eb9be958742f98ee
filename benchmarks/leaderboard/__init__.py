"""The leaderboard: a page made of stored records."""
