"""What a set of episodes shows: statistics, classes of failure, and the pages of the report."""
