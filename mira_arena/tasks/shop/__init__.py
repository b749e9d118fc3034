"""Tasks of the shop's customers."""

from mira_arena.tasks.shop import account, buying

TEMPLATES = (*buying.TEMPLATES, *account.TEMPLATES)
