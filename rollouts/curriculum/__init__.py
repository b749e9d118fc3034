"""The tasks of the next phase, from the failed ones of the phases so far."""
