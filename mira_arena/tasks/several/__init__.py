"""Tasks across applications, each in its own tab: a fact found on one site is used on another."""

from mira_arena.tasks.several import carrying, posting

TEMPLATES = (*posting.TEMPLATES, *carrying.TEMPLATES)
