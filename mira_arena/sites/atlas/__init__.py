"""The map and the encyclopedia: one application with two sites about a fictional country."""
