"""Tasks of booking tours."""

from mira_arena.tasks.tours import booking

TEMPLATES = booking.TEMPLATES
