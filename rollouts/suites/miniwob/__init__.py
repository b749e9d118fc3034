"""MiniWoB++: small pages with one instruction each, from the package `miniwob`."""
