"""A tour is booked leg by leg. A booking is final."""

import pytest

from mira_arena.sites.state import Refused
from mira_arena.sites.tours.content import MAX_LEGS, OFFERS, make_content
from mira_arena.sites.tours.state import TourState
from mira_arena.tasks.habits import DRAWN_EACH_TIME
from mira_arena.tasks.registry import instance
from rollouts.suites.habits import Habits
from tests.suites.driving import play_over_http


def test_no_two_offers_of_an_agency_are_the_same():
    for seed in range(50):
        offers = [offer for leg in make_content(seed).legs for offer in leg]
        assert len(set(offers)) == len(offers) == MAX_LEGS * OFFERS


def test_legs_are_booked_in_order_and_never_again():
    state = TourState(3, {"legs": 4})
    legs = make_content(3).legs
    assert state.offers() == legs[0]
    state.book(1, legs[0][2])
    assert (state.booked(), state.offers()) == ([legs[0][2]], legs[1])
    for leg, offer in ((1, legs[0][0]), (2, legs[0][0]), (3, legs[2][0]), (2, "")):
        with pytest.raises(Refused):
            state.book(leg, offer)
    for leg in (2, 3, 4):
        state.book(leg, legs[leg - 1][0])
    assert state.offers() == ()
    with pytest.raises(Refused):
        state.book(5, legs[4][0])
    assert state.changes() == [f"leg 1 {legs[0][2]}", *(f"leg {leg} {legs[leg - 1][0]}" for leg in (2, 3, 4))]


async def test_each_leg_is_one_milestone_and_one_step(arena):
    task = arena.task("tours.tour_6.validation.3")
    episode = await play_over_http(arena, task, arena.expert(task))
    assert len(episode.steps) == 7
    assert [sum(row) for row in arena.milestones(episode)[1]] == [1, 2, 3, 4, 5, 6, 6]


async def test_a_mistake_is_drawn_anew_at_each_leg_and_is_never_the_wanted_offer(arena):
    """At probability 1 no leg is right; at .5, about half of them are, in any order."""
    right = []
    for number in range(40):
        task = arena.task(f"tours.tour_10.train.{number}")
        wanted = [move.element for move in instance(task.id).draft.moves[:-1]]
        for chance in (1.0, 0.5):
            episode = await play_over_http(arena, task, arena.expert(task, {"takes_first_other": chance}, seed=1))
            booked = episode.steps[-1].state["tours"]["booked"]
            legs = [one == other for one, other in zip(booked, wanted, strict=True)]
            if chance == 1:
                assert not any(legs)
                firsts = [next(o for o in leg if o != w) for leg, w in zip(make_content(task.seed).legs, wanted, strict=True)]
                assert booked == firsts
            else:
                right.append(legs)
                assert arena.judge(episode).success == all(legs)
    assert 160 < sum(map(sum, right)) < 240
    assert all(5 < sum(leg) < 35 for leg in zip(*right, strict=True))
    assert len({tuple(legs) for legs in right}) > 30


def test_habits_that_are_drawn_once_do_not_depend_on_the_move():
    assert Habits({"stops_early": 1.0, "takes_first_other": 1.0}, "a", DRAWN_EACH_TIME).drawn == {"stops_early"}
