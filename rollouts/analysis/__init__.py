"""What a set of episodes shows: statistics, summaries, paired comparisons and classes of failure."""
