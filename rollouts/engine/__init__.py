"""Runs episodes: one, one process of them, or many at once, here or on a Ray cluster."""
