"""The rollout side: browsers, suites, labels, evaluation. It never imports JAX."""

DISTRIBUTION = "mira-jax"
"""Read by `mira_jax.extras`: an unrelated distribution installs a package of this name too."""
