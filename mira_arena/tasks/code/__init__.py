"""Tasks on the code host."""

from mira_arena.tasks.code import changing, finding, organising

TEMPLATES = (*changing.TEMPLATES, *finding.TEMPLATES, *organising.TEMPLATES)
