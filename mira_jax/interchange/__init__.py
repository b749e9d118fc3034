"""Episodes in the formats of other programs: one module or two for each format. No JAX and no browser.

A reader yields the episodes of a file, and for an episode that it refuses the UserError instead, so that the caller decides whether
to go on. Content of the files is parsed and never evaluated, and nothing is unpickled.
"""
