"""Random draws shared by templates of the code host."""

import datetime
from collections.abc import Iterable
from random import Random

from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.content import MAIN, TITLES, CodeContent, File, Project


def draw_title(random: Random, content: CodeContent) -> str:
    """Title of a new issue or merge request, different from all existing ones."""
    return random.choice([title for title in TITLES if title not in content.titles])


def draw_day(random: Random, content: CodeContent, first: int = 3, last: int = 80) -> str:
    """A date between `first` and `last` days from now."""
    return (datetime.date.fromisoformat(content.day) + datetime.timedelta(days=random.randrange(first, last))).isoformat()


def draw_setting(random: Random, project: Project, branch: str = MAIN) -> tuple[File, int, str]:
    """A config file with another value in one line, the 1-based number of that line, and its key."""
    file = next(file for file in project.files if file.path in vocabulary.CONFIG_FILES and file.branch == MAIN)
    place = random.randrange(len(file.lines))
    key, value = file.lines[place].split(" = ")
    new = random.choice([other for other in vocabulary.SETTINGS[key] if other != value])
    return File(branch, file.path, (*file.lines[:place], f"{key} = {new}", *file.lines[place + 1 :])), place + 1, key


def people_below(project: Project) -> list[str]:
    """Teammates whose role the signed-in user may change."""
    return [name for name, role in project.teammates if role != "owner" or project.role == "owner"]


def pick_other(random: Random, options: Iterable[str], *known: str) -> str:
    return random.choice([option for option in options if option not in known])
