"""MiniWoB++: small pages, each with one instruction, from the package `miniwob`."""
