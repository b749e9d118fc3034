"""Evaluations compared task by task, through the command, against values worked out by hand."""

import json

import pytest
import scipy.stats

from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import Spool
from rollouts import compare
from rollouts.analysis.evaluation import LOST
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
        code = compare.COMMAND.run(argv)
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err

    return run


TWO_POLICIES = "this compares two policies; of the methods that trained them it says nothing beyond this run of each (--set seeds=[...])"


def test_wins_losses_and_mcnemar_by_hand(run, tmp_path):
    first = write(tmp_path / "a", "0 0 0 0 0 0 1 1 1 0")
    second = write(tmp_path / "b", "1 1 1 1 1 1 0 1 1 0", "n")
    code, said = run(first, second, "--json", str(tmp_path / "all.json"))
    lines = said.splitlines()
    assert code == 0
    assert lines[0] == f"baseline   {first}   30.0 %    10.8 -  60.3 %" and lines[1].startswith(f"treatment  {second}   80.0 %")
    assert lines[2].startswith("difference +50.0 points, 95 % interval ")
    assert lines[3] == "10 tasks: 6 wins, 1 losses, 3 ties; exact McNemar test, two-sided: p = 0.12"  # 2 (7 + 1) / 2^7 = 0.125
    assert lines[4:11] == ["wins:", *(f"  shop.buy.test.{number}" for number in range(6))]
    assert lines[11:14] == ["losses:", "  shop.buy.test.6", "ties: 2 solved by both at every attempt, 1 by neither; --json FILE lists them"]
    assert lines[14:] == [TWO_POLICIES]
    tree = json.loads((tmp_path / "all.json").read_text())
    one = tree["comparison"]
    assert (one["p_value"], one["difference"], one["tasks"], one["sided"]) == (0.125, 0.5, 10, "two-sided")
    assert -1 <= one["low"] < 0.5 < one["high"] <= 1
    assert [task["task"] for task in tree["ties"]] == [f"shop.buy.test.{number}" for number in (7, 8, 9)]
    assert tree["wins"][0] == {
        "task": "shop.buy.test.0", "template": "buy", "domain": "shop", "baseline": 0, "baseline_attempts": 1,
        "treatment": 1, "treatment_attempts": 1,
    }  # fmt: skip
    assert run(first, second)[1] == said, "the same again"
    assert "p = 0.12" in run(second, first)[1] and "difference -50.0" in run(second, first)[1]


def test_with_several_attempts_a_task_is_won_by_the_one_that_solves_it_more_often(run, tmp_path):
    first, second = write(tmp_path / "a", "00 01 11 10"), write(tmp_path / "b", "11 11 10 01")
    code, said = run(first, second, "--set", "level=0.9")
    assert code == 0 and "4 tasks: 2 wins, 1 losses, 1 ties; exact sign-flip test over tasks, two-sided: p = 0.75" in said
    # Of the 8 ways to sign the differences 1, 1/2, 1/2, the sum is 1 or more from 0 in 6.
    assert "difference +25.0 points, 90 % interval" in said  # (1 + 1/2 - 1/2 + 0) / 4
    assert "  shop.buy.test.1 (1 to 2 of 2)" in said and "  shop.buy.test.2 (2 to 1 of 2)" in said
    assert "ties: 0 solved by both at every attempt, 0 by neither" in said


def test_lost_episodes_are_left_out_and_named(run, tmp_path):
    first, second = write(tmp_path / "a", "0 1 x 1 11"), write(tmp_path / "b", "1 1 1 x 0x")
    code, said = run(first, second)
    assert code == 0 and "3 tasks: 1 wins, 1 losses, 1 ties" in said
    assert "  shop.buy.test.4 (2 of 2 to 0 of 1)" in said, "paired by task: the attempt that only one judged counts for it"
    assert "left out after infrastructure errors: shop.buy.test.2, shop.buy.test.3" in said


def test_a_comparison_with_itself_is_all_ties(run, tmp_path):
    folder = write(tmp_path / "a", "0 1 1")
    code, said = run(folder, folder)
    assert code == 0 and "difference +0.0 points, 95 % interval -56.1 to +56.1" in said and "0 wins, 0 losses, 3 ties" in said
    # Three ties leave a lot open: z^2 / (3 + z^2) = 0.561 (Tango 1998, no discordant pair).
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
    disjoint = write(tmp_path / "b", "1 x"), write(tmp_path / "c", "x 1")
    for argv, message in (
        ((), "name two evaluations"),
        ((folder,), "name two evaluations"),
        ((folder, str(tmp_path / "nowhere")), "nowhere: no such folder"),
        ((folder, folder, "--set", "level=1"), "--set: level: 1.0; it must be above 0 and below 1"),
        ((folder, folder, "--set", "sead=1"), "unknown key sead"),
        (disjoint, "no task has an outcome in both"),
    ):
        code, said = run(*argv)
        assert code == 2 and said.startswith("error: ") and message in said and said.count("\n") == 1


def write_seeds(tmp_path, method, outcomes):
    for seed, of_seed in outcomes.items():
        write(tmp_path / f"seed-{seed}" / method, of_seed, method)
    return str(tmp_path / "seed-{seed}" / method)


def test_over_seeds_the_seeds_are_the_sample(run, tmp_path):
    first = write_seeds(tmp_path, "sft", {0: "0 0 0 0 1", 1: "0 0 0 1 1", 2: "0 0 0 0 0"})
    second = write_seeds(tmp_path, "mira", {0: "1 0 0 0 1", 1: "1 1 0 1 1", 2: "1 1 1 0 0"})
    code, said = run(first, second, "--set", "seeds=[0,1,2]", "--json", str(tmp_path / "all.json"))
    differences = [0.2, 0.4, 0.6]
    expected = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert code == 0, said
    assert f"over 3 seeds, on these tasks: +40.0 points, 95 % interval {100 * expected.low:+.1f} to {100 * expected.high:+.1f}" in said
    assert "exact sign-flip test over seeds, two-sided: p = 0.25; 3 seeds can give no p below 0.25" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["0", "20.0", "%", "40.0", "%", "+20.0", "1", "0", "4", "1.00"] in lines
    tree = json.loads((tmp_path / "all.json").read_text())
    assert tree["over_seeds"]["differences"] == differences and tree["over_seeds"]["seeds"] == [0, 1, 2]
    assert tree["seeds"]["2"]["comparison"]["wins"] == 3


def test_one_seed_says_nothing_of_the_method(run, tmp_path):
    first, second = write_seeds(tmp_path, "sft", {4: "0 0"}), write_seeds(tmp_path, "mira", {4: "1 1"})
    code, said = run(first, second, "--set", "seeds=[4]", "--json", str(tmp_path / "all.json"))
    assert code == 0 and "one seed: no conclusion about the methods is possible" in said and "interval" not in said
    over = json.loads((tmp_path / "all.json").read_text())["over_seeds"]
    assert (over["low"], over["high"], over["p_value"], over["smallest_p"]) == (None, None, 1.0, 1.0)


def test_seeds_without_spread_give_no_interval(run, tmp_path):
    first, second = write_seeds(tmp_path, "sft", {0: "0 0", 1: "0 0"}), write_seeds(tmp_path, "mira", {0: "1 0", 1: "0 1"})
    code, said = run(first, second, "--set", "seeds=[0,1]")
    assert code == 0 and "+50.0 points, no interval" in said and "no interval: the differences of all seeds are equal" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((), "contains {seed}; list the seeds, for example --set seeds=[0,1,2]"),
        (("--set", "seeds=[0,0]"), "seeds: [0, 0] contains a seed twice"),
        (("--set", "seeds=[0,1,7]"), "seed-7/sft: no such folder"),
        (("--set", "seeds=[0,1,2]"), "seed-2/mira: no such folder"),
        (("--set", "seeds=[0,1]", "--set", "treatment=runs/mira"), "treatment: runs/mira is the same run for every seed"),
        (("--set", "seeds=zero"), "--set: seeds: 'zero'; expected: list of integers"),
    ],
)
def test_seeds_that_do_not_fit_are_refused(run, tmp_path, changes, message):
    first = write_seeds(tmp_path, "sft", {0: "0 1", 1: "0 1", 2: "0 1"})
    second = write_seeds(tmp_path, "mira", {0: "1 1", 1: "1 1"})
    treatment = () if any("treatment=" in one for one in changes) else (second,)
    code, said = run(first, *treatment, *changes)
    assert code == 2 and said.startswith("error: ") and message in said and said.count("\n") == 1


def test_one_model_under_two_seeds_is_refused(run, tmp_path):
    for seed in (0, 1):
        for method in ("sft", "mira"):
            made = synthetic.trajectory(synthetic.task("buy", 0), method, 2, Status.FINISHED, True)
            policy = synthetic.replace(made.policy, fingerprint=f"{method}-{seed if method == 'sft' else 0}")
            synthetic.write_evaluation(tmp_path / f"{seed}" / method, [synthetic.replace(made, policy=policy)])
    code, said = run(str(tmp_path / "{seed}/sft"), str(tmp_path / "{seed}/mira"), "--set", "seeds=[0,1]")
    assert code == 2 and "seeds: " in said and "1/mira are of the same model; name runs of different seeds" in said
