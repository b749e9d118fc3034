"""Grades of plans by the rules of seeking: right plans in any wording get all, and tricks gain nothing."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_arena.seeking.forms import Count, Difference, Follow, Greater, Named, Select, Total
from mira_arena.seeking.plans import plan_text
from mira_arena.seeking.questions import TEMPLATES, make_question
from mira_arena.seeking.relations import RELATIONS
from mira_arena.seeking.world import make_world
from mira_jax.trajectories.actions import ParseError, parse
from mira_jax.trajectories.plan_grades import CONTENT, DIMENSIONS, first_text, is_right
from mira_jax.trajectories.records import Page, Policy, Status, Step, Trajectory
from rollouts.suites.base import Planned
from rollouts.suites.seeking.expert import SeekingExpert
from rollouts.suites.seeking.plan_rubric import grade_plan
from rollouts.suites.seeking.suite import SeekingSuite
from tests.odd_texts import odd_texts

WORLD = make_world("test", 0)
ALIASED = next(entity for entity in WORLD.by_kind["organisation"] if entity.alias)
WORK, PERSON, TOWN = (WORLD.by_kind[kind][0].name for kind in ("work", "person", "town"))
CHAIN = Follow(Follow(Follow(Named(WORK), "publisher"), "seat"), "mayor")
"""What is the mayor of the seat of the publisher of WORK?"""
PLAN = f"1 publisher of {WORK}, 2 seat of 1, 3 mayor of 2"
SELECT = Follow(Select(Named(PERSON), "works", "publication year", "1709"), "setting")
GREATER = Greater(Follow(Named(WORK), "publisher"), Follow(Named(PERSON), "employer"), "staff")


def grade(form, comment, query=WORK, response=None):
    response = response if response is not None else f'# Plan: {comment}\ndo(action="Search", argument="{query}", element="search")'
    try:
        action = parse(response)
    except ParseError:
        action = None
    return grade_plan(form, WORLD, response, action)


def grades(*values):
    return dict(zip(DIMENSIONS, values, strict=True))


def test_the_plan_of_the_expert_is_right_and_those_of_its_habits_are_wrong():
    suite = SeekingSuite()
    assert isinstance(suite, Planned)
    for task in suite.tasks("test", None, 5 * len(TEMPLATES), seed=3):
        question = make_question(task.id)
        for attempt, right in enumerate((True, False)):
            response = suite.forced_response(task, '<input id="search">', right, attempt)
            assert response == suite.forced_response(task, '<input id="search">', right, attempt)
            found = grade_plan(question.form, question.world, response, parse(response))
            assert is_right(found) == right and (found.score == 1) == right, (task.id, response, found)
            assert found.source == "rule" and found.rubric == suite.plan_rules


def test_the_grade_depends_on_the_first_step_only():
    suite = SeekingSuite()
    (task,) = suite.tasks("train", ["chain_3"], 1, seed=0)
    response = SeekingExpert(make_question(task.id).form).respond(task, (), '<input id="search">')
    first = Step(index=0, page=Page(url="", observation=""), response=response, action=parse(response))
    other = Step(index=1, page=Page(url="", observation="# Plan: 1 seat of x"), response="# Plan: 1 seat of x\ngo_backward()")
    found = [
        suite.grade_plan(Trajectory(id="a", task=task, policy=Policy(name=name), steps=steps, status=status))
        for name, steps, status in (("p", (first,), Status.HORIZON), ("q", (first, other), Status.FINISHED))
    ]
    assert found[0] == found[1] and found[0].score == 1


def test_the_plan_of_a_chat_model_is_in_what_it_wrote_before_its_call():
    suite = SeekingSuite()
    (task,) = suite.tasks("train", ["chain_3"], 1, seed=0)
    plan, _, call = suite.forced_response(task, '<input id="search">', True).rpartition("\n")
    step = Step(index=0, page=Page(url="", observation=""), response=call, reasoning=f"I search first.\n{plan}\nNow:", action=parse(call))
    assert suite.grade_plan(Trajectory(id="a", task=task, policy=Policy(name="p"), steps=(step,), status=Status.HORIZON)).score == 1
    assert first_text(step) == f"I search first.\n{plan}\nNow:\n{call}"


@pytest.mark.parametrize(
    ("form", "comment"),
    [
        (CHAIN, PLAN),
        (CHAIN, PLAN.upper()),
        (CHAIN, f"1. Publisher of {WORK}; 2. the seat of 1; 3. find the mayor of step 2."),
        (CHAIN, f"publisher of the {WORK}, then seat of 1, then mayor of #2"),
        (CHAIN, f"1) find {WORK}'s publisher -> 2) 1's seat -> 3) 2's mayor"),
        (CHAIN, f"\n# 1 publisher of {WORK}\n# 2 seat of 1\n# 3 mayor of 2"),
        (SELECT, f"1 works of {PERSON}, 2 publication year of each of 1, 3 setting of 2"),
        (SELECT, f"1 works of {PERSON}, 2 publication year of 1 = 1709, 3 setting of 2"),
        (SELECT, f"1 works of {PERSON}, 2 the one of 1 whose publication year is 1709, 3 setting of 2"),
        (GREATER, f"1 publisher of {WORK}, 2 staff of 1, 3 employer of {PERSON}, 4 staff of 3"),
        (GREATER, f"1 employer of {PERSON}, 2 staff of 1, 3 publisher of {WORK}, 4 staff of 3, compare 2 and 4"),
        (GREATER, f"1 publisher of {WORK}, 2 employer of {PERSON}, 3 staff of 2, 4 staff of 1, then the greater of 3 and 4"),
        (Difference(*(GREATER.first, GREATER.second), "staff"),
         f"1 publisher of {WORK}, 2 employer of {PERSON}, 3 staff of 2, 4 staff of 1, difference between 3 and 4"),
        (Count(Named(PERSON), "works", "publication year", 1763),
         f"1 works of {PERSON}, 2 publication year of 1 after 1763, count those after 1763"),
        (Total(Named(TOWN), "events", "attendance"), f"1 events of {TOWN}, 2 attendance of 1, sum of the attendance of 2"),
        (Follow(Follow(Named(ALIASED.name), "founder"), "birthplace"), f"1 founder of {ALIASED.alias}, 2 birthplace of 1"),
        (Follow(Follow(Named(ALIASED.name, ALIASED.alias), "founder"), "birthplace"), f"1 founder of {ALIASED.name}, 2 birthplace of 1"),
    ],
)  # fmt: skip
def test_right_plans_in_other_words_and_orders_get_full_marks(form, comment):
    named = [name for name in (WORK, PERSON, TOWN, ALIASED.name, ALIASED.alias) if name in comment.lower()]
    first = min(named, key=comment.lower().index)
    found = grade(form, comment, query=first)
    assert found.dimensions == grades(5, 5, 5, 5, 5, 5) and found.score == 1 and is_right(found), found


@pytest.mark.parametrize(
    ("form", "comment", "expected"),
    [
        # The last hop is another: 2 of 3 hops are named and placed right. The name is used rightly. 2 of 3 pieces are needed.
        (CHAIN, f"1 publisher of {WORK}, 2 seat of 1, 3 population of 2", (0, 3, 5, 3, 5, 3)),
        # The first is another: the others are named, but 2 starts from the wrong hop, and 3 rightly from 2.
        (CHAIN, f"1 author of {WORK}, 2 seat of 1, 3 mayor of 2", (5, 3, 5, 1, 0, 3)),
        # The middle one is left out.
        (CHAIN, f"1 publisher of {WORK}, 2 mayor of 1", (5, 3, 5, 1, 5, 5)),
        # References to later hops, and to a hop that does not exist.
        (CHAIN, f"1 mayor of 2, 2 seat of 3, 3 publisher of {WORK}", (5, 1, 5, 1, 5, 5)),
        (CHAIN, f"1 publisher of {WORK}, 2 seat of 1, 3 mayor of 7", (5, 1, 5, 3, 5, 5)),
        # Padding before the end, and at the end.
        (CHAIN, f"1 publisher of {WORK}, 2 seat of 1, 3 price of {WORK}, 4 staff of 1, 5 mayor of 2", (5, 5, 5, 5, 5, 3)),
        (CHAIN, f"{PLAN}, 4 birth year of 3", (0, 3, 5, 5, 5, 3)),
        (CHAIN, f"{PLAN}, 4 mayor of 2", (5, 3, 5, 5, 5, 3)),
        # The condition has another value: its hop is not that of the question.
        (SELECT, f"1 works of {PERSON}, 2 publication year of 1 is 1710, 3 setting of 2", (5, 3, 0, 1, 2, 3)),
        # Only one side of a comparison, and a comparison of another kind.
        (GREATER, f"1 publisher of {WORK}, 2 staff of 1", (2, 2, 5, 2, 2, 5)),
        (GREATER, f"1 publisher of {WORK}, 2 staff of 1, 3 employer of {PERSON}, 4 staff of 3, sum of 2 and 4", (2, 2, 5, 5, 5, 4)),
    ],
)
def test_wrong_plans_lose_where_they_are_wrong(form, comment, expected):
    found = grade(form, comment)
    assert found.dimensions == grades(*expected), found
    assert found.score == pytest.approx(sum(expected) / 30) and (is_right(found) == (min(found.dimensions[name] for name in CONTENT) == 5))


def test_the_first_action_is_a_search_or_visit_of_what_the_plan_starts_with():
    def tool(action):
        return grade(CHAIN, "", response=f"# Plan: {PLAN}\n{action}").dimensions["tool_appropriateness"]

    assert tool(f'do(action="Search", argument="The {WORK}", element="search")') == 5
    assert tool(f'do(action="Search", argument="{WORK} publisher", element="1")') == 5
    assert tool(f'do(action="Click", element="{WORK}")') == 5
    assert tool(f'do(action="Search", argument="what is the mayor of {WORK}", element="search")') == 3
    assert tool(f'do(action="Search", argument="{PERSON}", element="search")') == 0
    assert tool('exit(message="N/A")') == tool(f'do(action="Type", argument="{WORK}", element="search")') == tool("") == 0


QUESTION = f"What is the mayor of the seat of the publisher of {WORK}? Where pages disagree, the later page is right."


@pytest.mark.parametrize(
    "comment",
    [
        "",
        QUESTION,
        QUESTION.removeprefix("What is "),
        f"1 {QUESTION}, 2 seat of 1, 3 mayor of 2 {QUESTION}",
        ". ".join(DIMENSIONS.values()),
        "goal alignment 5, subgoal coverage 5, tool appropriateness 5, order 5, constraint coverage 5, economy 5",
        "every hop that the answer needs is named; full marks; the plan is right",
        ", ".join(f"{number} {relation} of {WORK}" for number, relation in enumerate(RELATIONS, 1)),
        ", ".join(f"{number} {relation} of {number - 1}" for number, relation in enumerate(RELATIONS, 1)),
        "publisher, seat, mayor",
        "1 publisher of some work, 2 seat of 1, 3 mayor of 2",
        "1 publisher of 3, 2 seat of 1, 3 mayor of 2",
    ],
)
def test_tricks_earn_less_than_any_plan_with_one_mistake(comment):
    one_mistake = min(grade(CHAIN, PLAN.replace(was, now)).score for was, now in (("publisher", "author"), ("mayor", "population")))
    found = grade(CHAIN, comment)
    assert found.score < one_mistake and found.score <= 0.5 and not is_right(found), found
    assert found.score == 0 or " of " in comment
    assert found.score == 0 or comment not in (QUESTION, QUESTION.removeprefix("What is "))


def test_no_plan_has_grade_0_whatever_the_action():
    search = f'do(action="Search", argument="{WORK}", element="search")'
    inside = f'do(action="Search", argument="# Plan: {PLAN}", element="search")'
    after = f"{search}\n# Plan: {PLAN}"
    for response in (search, inside, after, f"Plan: {PLAN}\n{search}", f"# plan {PLAN}\n{search}", "", "# Plan:", f"# Plan: ,;.\n{search}"):
        found = grade(CHAIN, "", response=response)
        assert found.dimensions == grades(0, 0, 0, 0, 0, 0) and found.score == 0 and found.detail == "no plan", response


def test_of_several_plans_the_worst_counts():
    wrong = f"1 author of {WORK}, 2 seat of 1, 3 mayor of 2"
    search = f'do(action="Search", argument="{WORK}", element="search")'
    alone = grade(CHAIN, wrong).dimensions
    for first, second in ((PLAN, wrong), (wrong, PLAN)):
        found = grade(CHAIN, "", response=f"# Plan: {first}\n# Plan: {second}\n{search}")
        assert found.dimensions == {**alone, "economy": 0} and found.detail == "2 plans"
    assert grade(CHAIN, "", response=f"# Plan: {PLAN}\n# Plan: {PLAN}\n{search}").dimensions == grades(5, 5, 5, 5, 5, 0)


def test_padding_never_gains():
    right = grade(CHAIN, PLAN).score
    draw = random.Random(0)
    for _ in range(200):
        pieces = PLAN.split(", ")
        for number in range(draw.randint(1, 12)):
            padding = f"{number + 4} {draw.choice(list(RELATIONS))} of {draw.choice([WORK, PERSON, '1', '2', '3'])}"
            pieces.insert(draw.randint(0, len(pieces)), draw.choice([padding, "be careful", "read all pages"]))
        assert grade(CHAIN, ", ".join(pieces)).score < right


def test_a_megabyte_of_text_is_no_plan_and_costs_no_time():
    began = time.process_time()
    for text in (f"# Plan: {PLAN}, " * 20_000, "# Plan: " + "1 " * 500_000, "# Plan: " + f"{PLAN}, " * 20_000, "#" * 1_000_000):
        assert grade(CHAIN, "", response=f"{text}\ngo_backward()").score == 0
    for text in (
        "# Plan: " + "seat of " * 2400,
        "# Plan: " + "a's " * 4900,
        "# Plan: " + "1," * 9900,
        "# Plan:\n" + "# 1 seat of 1\n" * 1400,
    ):
        assert grade(CHAIN, "", response=f"# Plan: {text}\ngo_backward()").score < 0.5
    assert time.process_time() - began < 20


HOSTILE = ("\uff19" * 300, "1" * 5000, "\u00b2 seat of \u00b2", "\u202e1 seat of 1", "\x00, \x1b[2J, 1 seat of \ud800")


@pytest.mark.parametrize("text", [*odd_texts(20, 0), *HOSTILE])
def test_odd_text_is_graded(text):
    found = grade(CHAIN, "", response=f"# Plan: {text}\ngo_backward()")
    assert 0 <= found.score < 1 and set(found.dimensions) == set(DIMENSIONS)


@given(st.lists(st.sampled_from([*PLAN.split(", "), "1", "of", "then", ",", "mayor of", WORK, "'s", "\n#", "whose", "= 3"]), max_size=12))
@settings(max_examples=150, deadline=None)
def test_every_text_has_grades_from_0_to_5(parts):
    found = grade(CHAIN, " ".join(parts))
    assert all(0 <= value <= 5 for value in found.dimensions.values())
    assert not is_right(found) or found.dimensions["subgoal_coverage"] == 5


def test_plan_text_of_every_form_is_read():
    for task in SeekingSuite().tasks("train", None, 28, seed=9):
        question = make_question(task.id)
        found = grade_plan(question.form, question.world, f"# Plan: {plan_text(question.form)}\ngo_backward()", parse("go_backward()"))
        assert found.dimensions == grades(5, 5, 0, 5, 5, 5), task.id
