"""The tasks: one package for each site or pair of sites, listed in `registry`."""
