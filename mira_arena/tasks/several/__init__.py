"""Tasks over several applications, each in a tab of its own: a fact found on one site is used on another."""

from mira_arena.tasks.several import carrying, posting

TEMPLATES = (*posting.TEMPLATES, *carrying.TEMPLATES)
