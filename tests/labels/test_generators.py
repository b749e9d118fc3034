"""Subgoals by rules, and what subgoals must be. Expected values are worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status
from rollouts.labels.milestones import by_rules
from rollouts.labels.subgoals import files, template
from rollouts.labels.subgoals.examples import Examples
from rollouts.labels.subgoals.files import Goal, SubgoalFile
from rollouts.labels.subgoals.successes import Event, Milestones, in_order, kind
from rollouts.labels.subgoals.validation import leak, problems, tidy
from rollouts.suites.tasks.items import Check
from tests.labels.episodes import episode, shopping, task


def test_a_template_takes_the_values_of_the_clauses_in_order():
    found = template.goals('Buy 3 of "dotted candle, red" and then review "old pan". Answer with the "total and tax".', 9)
    assert [goal.text for goal in found] == [
        "use '3': Buy 3 of \"dotted candle, red\"",
        "use 'dotted candle, red': Buy 3 of \"dotted candle, red\"",
        "use 'old pan': review \"old pan\"",
        "use 'total and tax': Answer with the \"total and tax\"",
        "give the answer",
    ]
    assert found[0].done == (Check(argument="3"),)
    assert found[1].done == (Check(argument="dotted candle, red"), Check(target="dotted candle, red"), Check(url="dotted-candle-red"))
    assert found[4].done == (Check(action="exit"),)
    assert [goal.text[:9] for goal in template.goals('Set "a" to 1, "b" to 2, "c" to 3 and "d" to 4', 4)] == [
        "use '1': ", "use '2': ", "use '3': ", "use '4': ",
    ]  # fmt: skip
    assert template.goals("Log out", 4) == ()


@given(st.text(max_size=200), st.integers(1, 8))
def test_any_instruction_gives_valid_subgoals(instruction, count):
    found = template.goals(instruction, count)
    assert len(found) <= count and len({goal.text for goal in found}) == len(found)
    assert all(0 < len(goal.text) <= files.LONGEST and goal.done for goal in found)


def test_successes_share_events_in_order_and_tell_them_for_other_values():
    known = Milestones([shopping(1), shopping(2, 5, "red vase"), shopping(3, success=False)], least=2)
    assert kind(shopping(1).task) == kind(shopping(2, 5, "red vase").task)
    found = known.goals(shopping(9, 7, "old pan").task, 9)
    assert found == (
        Goal("the page __SHOP__/search is open", (Check(path="__SHOP__/search"),)),
        Goal("the page __SHOP__/product/old-pan is open", (Check(path="__SHOP__/product/old-pan"),)),
        Goal("Type '7' in 'quantity'", (Check(action="Type", target='="quantity"', argument="7"),)),
        Goal("the page __SHOP__/orders/* is open", (Check(path="__SHOP__/orders/*"),)),
    )
    assert known.goals(shopping(9, 7, "old pan").task, 2) == (found[1], found[3])
    assert known.goals(task(9, 'Sell 2 of "blue lamp"'), 4) == ()
    assert Milestones([shopping(1)], least=2).goals(shopping(1).task, 4) == ()
    lost = shopping(2, 5, "red vase", status=Status.INFRA_ERROR)
    assert Milestones([shopping(1), lost], least=2).goals(shopping(1).task, 4) == ()


async def test_the_subgoals_of_successes_are_checked_without_a_model():
    known = Milestones([shopping(1), shopping(2, 5, "red vase")], least=2)
    other = shopping(3, 4, "old pan")
    labelled = await by_rules(SubgoalFile(made_from={}, subgoals={other.task.id: known.goals(other.task, 4)}))(other)
    rows = [step.milestones for step in labelled.steps]
    assert rows == [(1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0), (1, 1, 1, 1), (1, 1, 1, 1)]
    assert labelled.subgoals[2].check == 'action: Type; target: ="quantity"; argument: 4'


def test_the_longest_common_order_is_found():
    a, b, c, d, e = (Event(url=name) for name in "abcde")
    assert in_order([[a, b, c, d], [b, a, c, d], [e, b, c, a, d]]) == [b, c, d]
    assert in_order([[a, b], [b, a]]) == [a] and in_order([[a], [b]]) == [] and in_order([[a, b, c]]) == [a, b, c]


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["Open the cart", "Place the order"], []),
        (["Open the cart"], ["there are 1 subgoals, not 2"]),
        (["Open the cart", "open the CART!"], ["subgoal 2 repeats subgoal 1"]),
        (["Open the cart", ""], ["subgoal 2 is empty"]),
        (["Open the cart", "..."], ["subgoal 2 is empty"]),
        (["Open the cart", "Order"], ["subgoal 2 has one word"]),
        (["Think about the cart", "Place the order"], ["subgoal 1 begins with 'think'"]),
        (["Open the cart", "Place the order " + "x" * 200], ["subgoal 2 has 216 characters"]),
        (["Open the cart", "Оформить заказ на сайте"], ["subgoal 2 is not in the language of the instruction"]),
        (["Open the cart", "The total of 42 dollars is shown"], ["subgoal 2 reveals '42'"]),
        (["Open the cart", "Ada Lovelace is shown"], ["subgoal 2 reveals 'ada lovelace'"]),
    ],
)
def test_what_subgoals_must_be(texts, told):
    found = problems(texts, "Order 2 lamps", ["42", "ada lovelace", "N/A", "order 2 lamps"], 2)
    assert len(found) == len(told) and all(problem.startswith(start) for problem, start in zip(found, told, strict=True))


def test_only_what_the_instruction_does_not_say_is_a_leak():
    assert leak("The 2 lamps are ordered", "Order 2 lamps", ["2"]) == ""
    assert leak("The 12 lamps are ordered", "Order lamps", ["2"]) == "" and leak("2 lamps", "Order lamps", ["in all 2"]) == "2"
    assert tidy("1. Open\u202e the\ncart ") == "Open the cart" and tidy("2023 is shown") == "2023 is shown"


def test_the_examples_in_the_package_cover_the_known_sites(tmp_path):
    examples = Examples("configs/subgoals/examples.yaml")
    sites = ("shop", "shopping_admin", "reddit", "gitlab", "wiki", "library")
    found = {site: examples.category(task(site=site)) for site in sites}
    assert len({id(category) for category in found.values()}) == len(examples.categories) == 6 and found["library"].sites == []
    for category in examples.categories.values():
        for example in category.examples:
            assert problems(example.subgoals, example.instruction, count=4) == []
    drawn = [[one.instruction for one in examples.draw(task(number), 0)] for number in range(20)]
    assert len({tuple(one) for one in drawn}) > 3 and drawn[0] == [one.instruction for one in examples.draw(task(0), 0)]
    for text in ("", "a: 1", "[]", "a: {sites: [], examples: []}", "a: [unclosed", "\0", "a: {sites: [b], examples: [{}]}"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UserError, match=r"bad\.yaml: (not a file of examples|give one category)"):
            Examples(tmp_path / "bad.yaml")


def test_files_are_read_strictly(tmp_path):
    path = tmp_path / "subgoals.json"
    written = SubgoalFile(made_from={"a": 1}, subgoals={"t.1": (Goal("open it", (Check(url="x"), Check(state={"a": None}))),)})
    files.write(path, written)
    assert files.read(path) == written
    for old, new in (('"format": 1', '"format": 2'), ('"open it"', '""'), ('"open it"', '"' + "x" * 201 + '"'), ('"url"', '"code"'),
                     ('"url": "x"', ""), ('"text"', '"words"')):  # fmt: skip
        (tmp_path / "bad.json").write_text(path.read_text().replace(old, new))
        with pytest.raises(UserError, match=r"bad\.json"):
            files.read(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_bytes(b"\xff{")
    with pytest.raises(UserError, match="damaged"):
        files.read(tmp_path / "bad.json")


def test_an_episode_of_another_kind_of_page_breaks_nothing():
    odd = episode(1, ("", "", "garbage"), ("x?y#z", '<a id="9">', 'do(action="Click", element="99")'), last="")
    known = Milestones([odd, odd], least=2)
    assert [goal.text for goal in known.goals(odd.task, 4)] in ([], ["Click"])
