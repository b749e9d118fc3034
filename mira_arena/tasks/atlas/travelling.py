"""Tasks for users of the map: routes, travel times, and nearby places."""

import itertools
from random import Random

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.content import AtlasContent
from mira_arena.sites.atlas.roads import Route
from mira_arena.sites.atlas.state import suggest
from mira_arena.tasks import milestones as done
from mira_arena.tasks.atlas.draws import nearest, pick
from mira_arena.tasks.atlas.milestones import directions_url, opened, shown_way
from mira_arena.tasks.atlas.moves import WAYS, find, go_to_nearest, travel
from mira_arena.tasks.atlas.targets import targets
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template

_LEAST_MINUTES = 3
"""Minimum difference in minutes between the fastest and the second."""


def route(content: AtlasContent, start: str, end: str, by: str) -> Route:
    return content.roads.route(content.by_name[start].node, content.by_name[end].node, by)


def show_way_on_layer(random: Random, content: AtlasContent) -> Draft:
    (start, end), by, layer = pick(random, content, 2), random.choice(WAYS[1:]), random.choice(vocabulary.LAYERS[1:])
    return Draft(
        values={"start": start.name, "end": end.name, "way": by, "layer": layer},
        evaluation=evaluation(targets(content, layer=layer), url=directions_url(start.name, end.name, by)),
        milestones=(
            done.exactly(f'choose the layer "{layer}"', "atlas", "layer", layer),
            done.on_page("open the directions", "__MAP__/directions"),
            shown_way(start.name, end.name, by),
        ),
        moves=(
            Move("click", "layers"), Move("click", layer, habit="forgets_option"), *travel(start.name, end.name, by), EXIT,
        ),
    )  # fmt: skip


def tell_minutes(random: Random, content: AtlasContent) -> Draft | None:
    """The expert types a prefix of the name and takes the suggestion."""
    (start, end), by = pick(random, content, 2), random.choice(WAYS[1:])
    minutes = route(content, start.name, end.name, by).minutes
    sign, kind = start.name.split()
    beginning = f"{sign} {kind[:2]}"
    if minutes == route(content, start.name, end.name, WAYS[0]).minutes or suggest(beginning, list(content.by_name)) != [start.name]:
        return None
    click, tab, _, *rest = travel(start.name, end.name, by)
    return Draft(
        values={"start": start.name, "end": end.name, "way": by},
        evaluation=evaluation(targets(content), answers={"exact_match": str(minutes)}),
        milestones=(
            done.on_page("open the directions", "__MAP__/directions"), shown_way(start.name, end.name, by),
            done.answered("answer with the minutes", str(minutes)),
        ),
        moves=(
            click, tab, Move("type", "from", beginning), Move("click", start.name), *rest, Move("tell", argument=r"(\d+) min,"),
        ),
    )  # fmt: skip


def tell_nearest_phone(random: Random, content: AtlasContent) -> Draft | None:
    (here,), kind = pick(random, content, 1), random.choice(vocabulary.KINDS)
    place = nearest(content, here.name, kind)
    if not place:
        return None
    return Draft(
        values={"kind": kind, "place": here.name},
        evaluation=evaluation(targets(content), answers={"exact_match": place.phone}),
        milestones=(opened(here.name), opened(place.name), done.answered("answer with the phone number", place.phone)),
        moves=(*find(here.name), *go_to_nearest(kind, place.name), Move("tell", argument=r"phone\s+(\d+ \d+)")),
    )


def tell_phone_if_listed(random: Random, content: AtlasContent) -> Draft | None:
    """In half of the instances the place is not on the map. Then the correct result is to report this."""
    (here,) = pick(random, content, 1)
    if random.random() < 0.5:
        return Draft(
            values={"place": here.name},
            evaluation=evaluation(targets(content), answers={"exact_match": here.phone}),
            milestones=(
                done.on_page("search", "__MAP__/search"), opened(here.name), done.answered("answer with the phone number", here.phone),
            ),
            moves=(*find(here.name, missing="N/A"), Move("tell", argument=r"phone\s+(\d+ \d+)")),
        )  # fmt: skip
    name = f"{here.name.split()[0]} {random.choice(vocabulary.KINDS)}"
    if name in content.by_name:
        return None
    return Draft(
        values={"place": name},
        evaluation=evaluation(targets(content), answers={"fuzzy_match": "N/A"}),
        milestones=(
            done.on_page("search", "__MAP__/search"), done.on_query(f'search for "{name}"', "__MAP__/search", q=name),
            done.answered('answer "N/A"', "N/A"),
        ),
        moves=(*find(name, missing="N/A"), Move("tell", argument=r"phone\s+(\d+ \d+)")),
    )  # fmt: skip


def tell_quickest_to_reach(random: Random, content: AtlasContent) -> Draft | None:
    kind, by = random.choice(vocabulary.KINDS), random.choice(WAYS)
    (start,), ends = pick(random, content, 1), pick(random, content, 3, kind)
    if start in ends:
        return None
    ranked = sorted((route(content, start.name, end.name, by).minutes, end.name) for end in ends)
    if ranked[1][0] - ranked[0][0] < _LEAST_MINUTES:
        return None
    names, answer = [end.name for end in ends], ranked[0][1]
    moves = list(travel(start.name, names[0], by, careful=True))
    for before, name in itertools.pairwise(names):
        moves += [Move("type", "to", name, note=rf"(\d+ min, [\d.]+ km to {before})"), Move("click", "get directions")]
    return Draft(
        values=dict(zip(("first", "second", "third"), names, strict=True)) | {"start": start.name, "way": by},
        evaluation=evaluation(targets(content), answers={"exact_match": answer}),
        milestones=(*(shown_way(start.name, name, by) for name in names), done.answered("answer with the name", answer)),
        moves=(*moves, Move("exit", argument=answer, note=rf"(\d+ min, [\d.]+ km to {names[-1]})")),
    )


TEMPLATES = tuple(
    Template(draw.__name__, ("map",), intent, draw)
    for draw, intent in (
        (show_way_on_layer, 'Show the directions from "{{start}}" to "{{end}}" by {{way}} on the "{{layer}}" layer.'),
        (tell_minutes, 'How many minutes does it take from "{{start}}" to "{{end}}" by {{way}}? Answer with the number.'),
        (tell_nearest_phone, 'What is the phone number of the {{kind}} nearest to "{{place}}"?'),
        (tell_phone_if_listed, 'What is the phone number of "{{place}}"? If it is not on the map, answer "N/A".'),
        (
            tell_quickest_to_reach,
            'Which of "{{first}}", "{{second}}" and "{{third}}" is the quickest to reach from "{{start}}" by {{way}}? '
            "Answer with the name.",
        ),
    )
)
