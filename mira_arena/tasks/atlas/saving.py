"""Tasks for users of the map: saving and arranging places, and leaving notes for others."""

from random import Random

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.content import AtlasContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.atlas.draws import labels, nearest, pick, saved_before
from mira_arena.tasks.atlas.milestones import opened, saved_as
from mira_arena.tasks.atlas.moves import find, go_to_nearest, save_as
from mira_arena.tasks.atlas.targets import targets
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template

_LEAST_MOVES_UP = 3


def save_nearest_of_three(random: Random, content: AtlasContent) -> Draft | None:
    town, kinds = random.choice(content.towns).name, random.sample(vocabulary.KINDS, 3)
    found, names = [place for kind in kinds if (place := nearest(content, town, kind))], labels(random, 3)
    if len(found) < len(kinds):
        return None
    steps, moves = [], []
    for kind, place, label in zip(kinds, found, names, strict=True):
        steps += [opened(place.name), saved_as(label, place.name)]
        moves += [*find(town), *go_to_nearest(kind, place.name), *save_as(label)]
    saved = saved_before(content) + [(label, place.name, "") for label, place in zip(names, found, strict=True)]
    keys = ("first_kind", "second_kind", "third_kind", "first", "second", "third")
    return Draft(
        values={"town": town} | dict(zip(keys, (*kinds, *names), strict=True)),
        evaluation=evaluation(targets(content, saved=saved)),
        milestones=(*steps[:-1], done.exactly("save all three in order", "atlas", "saved", [list(row) for row in saved])),
        moves=(*moves, EXIT),
    )


def arrange_saved_places(random: Random, content: AtlasContent) -> Draft | None:
    """One place is renamed and gets a note, one is removed, one moves to the top."""
    before = saved_before(content)
    renamed, removed, first = random.sample(before, 3)
    left = [row for row in before if row is not removed]
    ups = left.index(first)
    if ups < _LEAST_MOVES_UP:
        return None
    (label,), note = labels(random, 1), random.choice(vocabulary.LABEL_NOTES)
    changed = [(label, row[1], note) if row is renamed else row for row in left]
    saved = [first, *(row for row in changed if row is not first)]
    as_lists = [[list(row) for row in rows] for rows in (changed, saved)]
    return Draft(
        values={"old": renamed[0], "new": label, "note": note, "removed": removed[0], "first": first[0]},
        evaluation=evaluation(targets(content, saved=saved)),
        milestones=(
            done.on_page("open the saved places", "__MAP__/saved"),
            done.in_snapshot(f'rename "{renamed[0]}" to "{label}"', "atlas", "saved", [label, renamed[1], note]),
            done.exactly(f'remove "{removed[0]}"', "atlas", "saved", as_lists[0]),
            done.exactly(f'put "{first[0]}" first', "atlas", "saved", as_lists[1]),
        ),
        moves=(
            Move("click", "saved places"), Move("click", f"edit {renamed[0]}"), Move("type", "name", label), Move("type", "note", note),
            Move("click", "save"), Move("click", f"remove {removed[0]}", habit="forgets_removal"),
            *[Move("click", f"move {first[0]} up", habit="stops_early")] * ups, EXIT,
        ),
    )  # fmt: skip


def note_at_nearest(random: Random, content: AtlasContent) -> Draft | None:
    (here,), kind, text = pick(random, content, 1), random.choice(vocabulary.KINDS), random.choice(vocabulary.MAP_NOTES)
    place = nearest(content, here.name, kind)
    if not place:
        return None
    return Draft(
        values={"text": text, "kind": kind, "place": here.name},
        evaluation=evaluation(targets(content, notes=[(place.name, text)])),
        milestones=(
            opened(here.name), opened(place.name),
            done.exactly(f'add the note at "{place.name}"', "atlas", "notes", [[place.name, text]]),
        ),
        moves=(
            *find(here.name), *go_to_nearest(kind, place.name), Move("click", "add note"), Move("type", "note", text),
            Move("click", "add note", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("map",), intent, draw)
    for draw, intent in (
        (
            save_nearest_of_three,
            'Save the {{first_kind}}, the {{second_kind}} and the {{third_kind}} that are nearest to the town "{{town}}", '
            'in this order, as "{{first}}", "{{second}}" and "{{third}}".',
        ),
        (
            arrange_saved_places,
            'In your saved places, rename "{{old}}" to "{{new}}" with the note "{{note}}", remove "{{removed}}" and put "{{first}}" first.',
        ),
        (note_at_nearest, 'Add the note "{{text}}" to the map at the {{kind}} nearest to "{{place}}".'),
    )
)
