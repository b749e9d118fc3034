"""The tasks of a suite as an environment of OpenEnv. The package `openenv` is the extra of that name."""
