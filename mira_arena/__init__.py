"""Small web applications drawn from a seed, and tasks on them. `python -m mira_arena` serves them to a browser."""
