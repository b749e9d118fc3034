"""Small web applications generated from a seed, and tasks on them. `mira arena` serves them to a browser."""
