"""The arena suite: connects the sites and tasks of `mira_arena` to the rollout engine."""
