"""Values and arithmetic: queries, join graphs, results, accuracy, statistics. Imports nothing of ours but `errors`."""
