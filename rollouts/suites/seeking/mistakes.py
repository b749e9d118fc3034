"""Mistakes in a plan: a hop that is left out, or another relation."""

import dataclasses
from random import Random

from mira_arena.seeking.forms import Follow, Form, Named, OfTwo, OverMany, Select
from mira_arena.seeking.relations import RELATIONS


def misplanned(form: Form, habits: frozenset[str], random: Random) -> Form:
    """The form with the mistakes that bad habits make in a plan."""
    for habit in ("skips_hop", "mistakes_relation"):
        followed = _follows(form)
        if habit in habits and followed:
            form = _changed(form, random.choice(followed), habit, random)
    return form


def _follows(form: Form) -> list[Follow]:
    """All parts of the form that follow a relation."""
    if isinstance(form, Named):
        return []
    if isinstance(form, OfTwo):
        return [*_follows(form.first), *_follows(form.second)]
    return [*_follows(form.base), *([form] if isinstance(form, Follow) else [])]


def _changed(form: Form, part: Follow, habit: str, random: Random) -> Form:
    """The form in which the part is another: only its base, or with another relation of the same entities."""
    if form is part:
        if habit == "skips_hop":
            return part.base
        relation = RELATIONS[part.relation]
        others = [other.name for other in RELATIONS.values() if other.subject == relation.subject and not other.many and other != relation]
        return Follow(part.base, random.choice(others))
    parts = {
        field.name: _changed(value, part, habit, random)
        for field in dataclasses.fields(form)
        if isinstance(value := getattr(form, field.name), Follow | Select)
    }
    return dataclasses.replace(form, **parts)


def wrong_form(form: Form, random: Random) -> Form:
    """The form with one mistake, so that its plan is wrong. A form without a relation that could be left out or mistaken, such as a count
    over the works of a named person, reads another fact of the items."""
    if _follows(form):
        return misplanned(form, frozenset({random.choice(("skips_hop", "mistakes_relation"))}), random)
    if not isinstance(form, OverMany):
        raise ValueError(f"no mistake is possible in {form}")
    items = RELATIONS[form.many].object
    others = [one.name for one in RELATIONS.values() if one.subject == items and one.literal and one.name != form.by]
    return dataclasses.replace(form, by=random.choice(others))
