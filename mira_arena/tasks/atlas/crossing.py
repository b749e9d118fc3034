"""Tasks that need both the encyclopedia and the map, each in its own tab."""

from random import Random

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.content import AtlasContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.atlas.draws import labels, nearest, saved_before
from mira_arena.tasks.atlas.milestones import opened, read, saved_as, shown_way
from mira_arena.tasks.atlas.moves import LINK, WAYS, find, go_to_nearest, save_as, travel
from mira_arena.tasks.atlas.targets import targets
from mira_arena.tasks.atlas.travelling import route
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template

_TO_MAP = "1"
"""Index of the map's tab."""
_BIRTHPLACE = rf"birthplace\s+{LINK}"


def save_near_birthplaces(random: Random, content: AtlasContent) -> Draft | None:
    people, kind, names = random.sample(content.people, 2), random.choice(vocabulary.KINDS), labels(random, 2)
    towns = [person.birthplace for person in people]
    found = [place for town in towns if (place := nearest(content, town, kind))]
    if len(found) < len(towns) or found[0] == found[1]:
        return None
    steps, moves = [], []
    for town, place, label in zip(towns, found, names, strict=True):
        steps += [opened(place.name), saved_as(label, place.name)]
        moves += [*find(town), *go_to_nearest(kind, place.name), *save_as(label)]
    saved = saved_before(content) + [(label, place.name, "") for label, place in zip(names, found, strict=True)]
    return Draft(
        values={"kind": kind, "one": people[0].name, "other": people[1].name, "first": names[0], "second": names[1]},
        evaluation=evaluation(targets(content, saved=saved)),
        milestones=(
            read(people[0].name), read(people[1].name), *steps[:-1],
            done.exactly("save both in order", "atlas", "saved", [list(row) for row in saved]),
        ),
        moves=(
            *find(people[0].name, careful=True), *find(people[1].name, _BIRTHPLACE, careful=True),
            Move("switch", argument=_TO_MAP, note=_BIRTHPLACE), *moves, EXIT,
        ),
    )  # fmt: skip


def tell_way_between_birthplaces(random: Random, content: AtlasContent) -> Draft | None:
    one, other = random.sample(content.people, 2)
    by = random.choice(WAYS)
    if one.birthplace == other.birthplace:
        return None
    minutes = route(content, one.birthplace, other.birthplace, by).minutes
    if by != WAYS[0] and minutes == route(content, one.birthplace, other.birthplace, WAYS[0]).minutes:
        return None
    return Draft(
        values={"one": one.name, "other": other.name, "way": by},
        evaluation=evaluation(targets(content), answers={"exact_match": str(minutes)}),
        milestones=(
            read(one.name), read(other.name), done.on_page("open the directions", "__MAP__/directions"),
            shown_way(one.birthplace, other.birthplace, by), done.answered("answer with the minutes", str(minutes)),
        ),
        moves=(
            *find(one.name, careful=True), *find(other.name, _BIRTHPLACE, careful=True), Move("switch", argument=_TO_MAP, note=_BIRTHPLACE),
            *travel(one.birthplace, other.birthplace, by), Move("tell", argument=r"(\d+) min,"),
        ),
    )  # fmt: skip


def correct_hours_from_article(random: Random, content: AtlasContent) -> Draft | None:
    museum, comment = random.choice(content.museums), random.choice(vocabulary.COMMENTS)
    if content.by_name[museum.name].hours == museum.hours:
        return None
    correction = (museum.name, museum.hours, comment)
    return Draft(
        values={"museum": museum.name, "comment": comment},
        evaluation=evaluation(targets(content, corrections=[correction])),
        milestones=(
            read(museum.name), opened(museum.name),
            done.exactly("correct the opening hours", "atlas", "corrections", [list(correction)]),
        ),
        moves=(
            *find(museum.name, careful=True), Move("click", "contents"), Move("click", "visiting"),
            Move("switch", argument=_TO_MAP, note=r"open (\d+:\d+-\d+:\d+)"), *find(museum.name), Move("click", "edit opening hours"),
            Move("type", "opening hours", museum.hours), Move("type", "comment", comment),
            Move("click", "save edit", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("wiki", "map"), intent, draw)
    for draw, intent in (
        (
            save_near_birthplaces,
            'Save the {{kind}} nearest to the town where "{{one}}" was born as "{{first}}", '
            'then the {{kind}} nearest to the town where "{{other}}" was born as "{{second}}".',
        ),
        (
            tell_way_between_birthplaces,
            'How many minutes does it take by {{way}} from the town where "{{one}}" was born to the town where "{{other}}" was born? '
            "Answer with the number.",
        ),
        (
            correct_hours_from_article,
            'Bring the opening hours of "{{museum}}" on the map up to date with its article, with the comment "{{comment}}".',
        ),
    )
)
