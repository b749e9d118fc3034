"""The map and the encyclopedia: two sites about one made-up country, one application."""
