"""The suite of `mira_arena`: joins its sites and tasks to the rollout engine."""
