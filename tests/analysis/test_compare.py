"""Evaluations compared task by task, through the command, against values worked out by hand."""

import json

import pytest

from mira_jax import commands
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import Spool
from rollouts import compare
from rollouts.pool import LOST
from tests.analysis import synthetic


def write(folder, outcomes, method="m", template="buy"):
    """`outcomes`: per task, a character per attempt: 1 solved, 0 not, x lost before it could be packed."""
    episodes = []
    for number, attempts in enumerate(outcomes.split()):
        for attempt, outcome in enumerate(attempts):
            status = Status.INFRA_ERROR if outcome == "x" else Status.FINISHED
            made = synthetic.trajectory(synthetic.task(template, number), method, 2, status, outcome == "1")
            made = synthetic.replace(made, id=f"{made.id}-{attempt}", attempt=attempt)
            if outcome == "x":
                Spool(folder / "episodes" / LOST).add(made)
            else:
                episodes.append(made)
    synthetic.write_evaluation(folder, episodes)
    return str(folder)


@pytest.fixture
def run(capsys):
    def run(*argv):
        code = commands.run(compare.main, compare.CompareConfig, "", ("json",), argv, positional=("baseline", "treatment"))
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err

    return run


def test_wins_losses_and_mcnemar_by_hand(run, tmp_path):
    first = write(tmp_path / "a", "0 0 0 0 0 0 1 1 1 0")
    second = write(tmp_path / "b", "1 1 1 1 1 1 0 1 1 0", "n")
    code, said = run(first, second, "--json", str(tmp_path / "all.json"))
    lines = said.splitlines()
    assert code == 0
    assert lines[0] == f"baseline   {first}   30.0 %    10.8 -  60.3 %" and lines[1].startswith(f"treatment  {second}   80.0 %")
    assert lines[2].startswith("difference +50.0 points, 95 % interval ")
    assert lines[3] == "10 tasks: 6 wins, 1 losses, 3 ties; exact McNemar, two-sided: p = 0.12"  # 2 (7 + 1) / 2^7 = 0.125
    assert lines[4:11] == ["wins:", *(f"  shop.buy.test.{number}" for number in range(6))]
    assert lines[11:] == ["losses:", "  shop.buy.test.6", "ties: 2 solved by both at every attempt, 1 by neither; --json FILE lists them"]
    tree = json.loads((tmp_path / "all.json").read_text())
    assert (tree["p_value"], tree["difference"], tree["tasks"]) == (0.125, 0.5, 10)
    assert -1 <= tree["low"] < 0.5 < tree["high"] <= 1
    assert [task["task"] for task in tree["ties"]] == [f"shop.buy.test.{number}" for number in (7, 8, 9)]
    assert tree["wins"][0] == {
        "task": "shop.buy.test.0", "template": "buy", "domain": "shop", "attempts": 1, "baseline": 0, "treatment": 1
    }  # fmt: skip
    assert run(first, second)[1] == said, "the bootstrap is the same again"
    assert "p = 0.12" in run(second, first)[1] and "difference -50.0" in run(second, first)[1]


def test_with_several_attempts_a_task_is_won_by_the_one_that_solves_it_more_often(run, tmp_path):
    first, second = write(tmp_path / "a", "00 01 11 10"), write(tmp_path / "b", "11 11 10 01")
    code, said = run(first, second, "--set", "level=0.9")
    assert code == 0 and "4 tasks: 2 wins, 1 losses, 1 ties; exact sign test, two-sided: p = 1.00" in said
    assert "difference +25.0 points, 90 % interval" in said  # (1 + 1/2 - 1/2 + 0) / 4
    assert "  shop.buy.test.1 (1 to 2 of 2)" in said and "  shop.buy.test.2 (2 to 1 of 2)" in said
    assert "ties: 0 solved by both at every attempt, 0 by neither" in said


def test_lost_episodes_are_left_out_and_named(run, tmp_path):
    first, second = write(tmp_path / "a", "0 1 x 1 11"), write(tmp_path / "b", "1 1 1 x 0x")
    code, said = run(first, second)
    assert code == 0 and "3 tasks: 1 wins, 1 losses, 1 ties" in said
    assert "left out after infrastructure errors: shop.buy.test.2, shop.buy.test.3" in said


def test_a_comparison_with_itself_is_all_ties(run, tmp_path):
    folder = write(tmp_path / "a", "0 1 1")
    code, said = run(folder, folder)
    assert code == 0 and "difference +0.0 points, 95 % interval +0.0 to +0.0" in said and "0 wins, 0 losses, 3 ties" in said
    assert "p = 1.00" in said and "wins:" not in said


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"outcomes": "0 1"}, "not the same tasks: 1 only in {a} (such as shop.buy.test.2)"),
        ({"outcomes": "0 1 1 1"}, "not the same tasks: 1 only in {b} (such as shop.buy.test.3)"),
        ({"outcomes": "0 1 1", "template": "sell"}, "3 only in {a} (such as shop.buy.test.0); 3 only in {b} (such as shop.sell.test.0)"),
        ({"outcomes": "00 11 10"}, "not the same attempts: {a} has 3 episodes, at most 1 a task, {b} 6, at most 2"),
        ({"outcomes": "x x x"}, "no shards here"),
    ],
)
def test_other_tasks_are_refused(run, tmp_path, other, message):
    first, second = write(tmp_path / "a", "0 1 1"), write(tmp_path / "b", **other)
    code, said = run(first, second)
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert message.format(a=first, b=second) in said


def test_tasks_of_one_name_and_another_content_are_refused(run, tmp_path):
    first = write(tmp_path / "a", "1 1")
    changed = [
        synthetic.trajectory(synthetic.replace(synthetic.task("buy", number), intent="another"), "m", 2, Status.FINISHED, True)
        for number in range(2)
    ]
    code, said = run(first, str(synthetic.write_evaluation(tmp_path / "b", changed)))
    assert code == 2 and "2 have the same name and another content (such as shop.buy.test.0)" in said


def test_bad_input_gets_one_message(run, tmp_path):
    folder = write(tmp_path / "a", "1")
    disjoint = write(tmp_path / "b", "1x"), write(tmp_path / "c", "x1")
    for argv, message in (
        ((), "name two evaluations"),
        ((folder,), "name two evaluations"),
        ((folder, str(tmp_path / "nowhere")), "nowhere: no such folder"),
        ((folder, folder, "--set", "level=1"), "not between 0 and 1"),
        ((folder, folder, "--set", "sead=1"), "unknown key sead"),
        (disjoint, "no task has an outcome in both"),
    ):
        code, said = run(*argv)
        assert code == 2 and said.startswith("error: ") and message in said and said.count("\n") == 1
