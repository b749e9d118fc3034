"""The HTML pages of an evaluation and of a report, each one self-contained file."""
