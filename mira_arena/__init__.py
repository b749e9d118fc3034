"""Small web applications drawn from a seed, and tasks on them. `mira arena` serves them to a browser."""
