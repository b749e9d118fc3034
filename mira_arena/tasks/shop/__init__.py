"""Tasks for customers of the shop."""

from mira_arena.tasks.shop import account, buying

TEMPLATES = (*buying.TEMPLATES, *account.TEMPLATES)
