"""Tours of K legs: K choices in a row, each visible and final, with one milestone each.

A policy that is right at each leg with probability q succeeds with probability q^K. The series of templates therefore varies
how rare successes are and leaves everything else the same.
"""

import functools
from random import Random

from mira_arena.sites.tours.content import TourContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation, html_target
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template

LEGS = (4, 6, 8, 10)
HELD_OUT_LEGS = (5, 7, 9)
"""Lengths of tours that only the test split has."""


def tour(random: Random, content: TourContent, *, legs: int) -> Draft:
    wanted = [random.choice(offers) for offers in content.legs[:legs]]
    listed = " ".join(f"leg {leg} {offer}" for leg, offer in enumerate(wanted, 1))
    return Draft(
        values={"legs": ", ".join(f"leg {leg} {offer}" for leg, offer in enumerate(wanted, 1))},
        evaluation=evaluation([html_target("__TOURS__/changes", "#changes", listed)]),
        milestones=tuple(done.in_snapshot(f'book "{offer}"', "tours", "booked", offer) for offer in wanted),
        moves=(*(Move("click", offer, mistake="takes_first_other") for offer in wanted), EXIT),
        setup={"tours": {"legs": legs}},
    )


TEMPLATES = tuple(
    Template(f"tour_{legs}", ("tours",), "Book a tour: {{legs}}.", functools.partial(tour, legs=legs), held_out=legs in HELD_OUT_LEGS)
    for legs in sorted(LEGS + HELD_OUT_LEGS)
)
