"""Tasks on the forum."""

from mira_arena.tasks.forum import browsing, moderating, writing

TEMPLATES = (*browsing.TEMPLATES, *writing.TEMPLATES, *moderating.TEMPLATES)
