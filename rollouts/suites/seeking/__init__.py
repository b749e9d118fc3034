"""Information seeking: connects the world and the questions of `mira_arena.seeking` to the rollout engine."""
