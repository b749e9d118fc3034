"""The questions of seeking: one answer each, found by the plan, apart between splits."""

import pytest

from mira_arena.seeking.answers import NOT_STATED, normalise
from mira_arena.seeking.forms import Count, Difference, Earliest, Follow, Greater, Named, Select, Total, question, solve
from mira_arena.seeking.pages import make_pages
from mira_arena.seeking.plans import make_plan, plan_text
from mira_arena.seeking.questions import RULES, TEMPLATES, make_question, task_id
from mira_arena.seeking.relations import RELATIONS
from mira_arena.seeking.world import Dispute, Entity, World
from mira_jax.errors import UserError
from mira_jax.trajectories.tasks import SPLITS
from tests.arena.seeking.reading import read_world


def questions(split, count, world=0):
    names = [template.name for template in TEMPLATES.values() if split == "test" or not template.held_out]
    return [make_question(task_id(name, split, world, number)) for name in names for number in range(count)]


@pytest.mark.parametrize("split", SPLITS)
def test_a_solver_that_knows_only_the_pages_finds_exactly_one_answer(split):
    read, pages = read_world(split, 0), make_pages(split, 0)
    for it in questions(split, 12):
        found = solve(read, it.form)
        assert found == (frozenset() if it.answers == (NOT_STATED,) else {it.answers[0]}), it.identity
        assert len(it.plan) == it.template.hops and 2 <= it.template.hops <= 6
        groups = [hop.pages(it.world) for hop in it.plan]
        assert all(groups) and all(slug in pages for group in groups for slugs in group for slug in slugs), it.identity
        assert it.text == question(it.form) + RULES
        assert not any(answer in normalise(it.text) for answer in it.answers if not answer.isdigit() and answer != NOT_STATED), it.text


def test_only_questions_without_an_answer_have_none():
    for it in questions("test", 12):
        assert (it.answers == (NOT_STATED,)) == it.template.name.startswith("missing")
        assert it.guessable == it.template.name.startswith(("missing", "count"))


def test_no_question_is_in_two_splits_and_few_are_drawn_twice():
    texts = {split: [it.text for it in questions(split, 30)] for split in SPLITS}
    assert not set(texts["train"]) & set(texts["test"]) and not set(texts["validation"]) & set(texts["test"])
    assert all(len(set(found)) > 0.95 * len(found) for found in texts.values())


def test_other_worlds_ask_other_questions():
    assert not {it.text for it in questions("test", 20, world=0)} & {it.text for it in questions("test", 20, world=1)}


def test_a_question_is_the_same_each_time():
    for it in questions("validation", 2):
        assert make_question.__wrapped__(it.identity) == it


@pytest.mark.parametrize(
    "identity",
    ["", "seeking", "arena.chain_2.test.0.0", "seeking.chain_9.test.0.0", "seeking.chain_2.dev.0.0", "seeking.chain_2.test.0.00",
     "seeking.chain_2.test.-1.0", "seeking.chain_2.test.0.0\n", "seeking.chain_2.test.0.9999999999999"],
)  # fmt: skip
def test_an_id_that_does_not_exist_is_refused(identity):
    with pytest.raises(UserError, match="no task"):
        make_question(identity)


def test_some_templates_are_in_the_test_split_only():
    assert [it.name for it in TEMPLATES.values() if it.held_out] == ["chain_6", "earliest_3", "difference_4"]
    with pytest.raises(UserError, match="only in the test split"):
        make_question("seeking.chain_6.train.0.0")


@pytest.fixture
def small():
    """Two authors, three works, two towns, worked out by hand."""
    entities = [
        Entity("ada", "person", facts={"works": ("song", "tale", "hymn"), "birthplace": ("ford",), "birth year": ("1800",)}),
        Entity("bob", "person", "the fox", {"birthplace": ("bay",), "birth year": ("1799",)}, Dispute("birthplace", "ford", True)),
        Entity("song", "work", facts={"author": ("ada",), "publication year": ("1830",), "price": ("100",), "dedicatee": ("bob",)}),
        Entity("tale", "work", facts={"author": ("ada",), "publication year": ("1840",), "price": ("250",)}),
        Entity("hymn", "work", facts={"author": ("ada",), "publication year": ("1840",), "price": ("325",)}),
        Entity("ford", "town", facts={"population": ("700",)}),
        Entity("bay", "town", facts={"population": ("900",)}),
    ]
    return World("test", 0, {entity.name: entity for entity in entities})


AUTHOR = Follow(Named("tale"), "author")
FORMS = [
    (Follow(AUTHOR, "birth year"), {"1800"}, "What is the birth year of the author of tale?"),
    (Follow(Named("tale"), "dedicatee"), set(), "What is the dedicatee of tale?"),
    (Named("bob", "the fox"), {"bob"}, "What is the fox?"),
    (Select(AUTHOR, "works", "price", "250"), {"tale"}, "What is the work of the author of tale whose price is 250?"),
    (Select(AUTHOR, "works", "publication year", "1840"), {"tale", "hymn"}, None),
    (Count(AUTHOR, "works", "publication year", 1830), {"2"},
     "How many of the works of the author of tale have a publication year after 1830?"),
    (Total(Named("ada"), "works", "price"), {"675"}, "What is the sum of the price of all works of ada?"),
    (Earliest(Named("ada"), "works", "publication year"), {"song"}, "Which of the works of ada has the earliest publication year?"),
    (Greater(AUTHOR, Follow(Named("song"), "dedicatee"), "birth year"), {"ada"},
     "Which has the later birth year: the author of tale, or the dedicatee of song?"),
    (Greater(Named("ford"), Named("bay"), "population"), {"bay"}, "Which has the greater population: ford, or bay?"),
    (Difference(Named("ford"), Named("bay"), "population"), {"200"},
     "What is the difference between the population of ford and that of bay?"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "answers", "text"), FORMS)
def test_forms(small, form, answers, text):
    assert solve(small, form) == answers
    assert text is None or question(form) == text


def test_the_plan_of_a_selection(small):
    form = Follow(Select(AUTHOR, "works", "price", "100"), "dedicatee")
    assert plan_text(form) == "1 author of tale, 2 works of 1, 3 price of 2, 4 dedicatee of 3"
    plan = make_plan(form)
    assert [hop.looked_for for hop in plan[:3]] == [
        "the author of tale",
        "the works of the author of tale",
        "the one of the works whose price is 100",
    ]
    assert [hop.pages(small) for hop in plan] == [
        (("tale", "ada-biography"),),
        (("ada-biography",),),
        (("song-review",),),
        (("song-review",),),
    ]


def test_the_plan_of_a_comparison_and_of_a_count(small):
    plan = make_plan(Greater(AUTHOR, Named("bob", "the fox"), "birthplace"))
    assert [hop.text for hop in plan] == ["author of tale", "birthplace of 1", "birthplace of the fox"]
    assert plan[2].pages(small) == (("bob-notice",),)
    assert all(hop.tools == ("search", "visit") for hop in plan)
    count = make_plan(Count(Named("ada"), "works", "publication year", 1830))
    assert [hop.text for hop in count] == ["works of ada", "publication year of 1"]
    assert count[1].pages(small) == (("hymn",), ("song",), ("tale",))


def test_sentences_name_subject_and_object_once():
    for relation in RELATIONS.values():
        assert relation.sentence.startswith("{subject} ") and relation.sentence.endswith(" {object}.")
