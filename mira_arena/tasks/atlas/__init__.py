"""Tasks on the map and in the encyclopedia."""

from mira_arena.tasks.atlas import crossing, reading, saving, travelling

TEMPLATES = (*saving.TEMPLATES, *travelling.TEMPLATES, *reading.TEMPLATES, *crossing.TEMPLATES)
