"""Analysis of a set of episodes: statistics, summaries, paired comparisons and failure classes."""
