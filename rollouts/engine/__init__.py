"""Runs episodes: a single episode, the episodes of one process, and pools on this machine or a Ray cluster."""
