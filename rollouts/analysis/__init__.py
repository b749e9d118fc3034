"""What a set of episodes shows: statistics, classes of failure, and the pages of the report."""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
"""Of the pages, with their style sheet and script."""
