"""The web applications: one package each, listed in `registry`."""
