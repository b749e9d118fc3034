"""The numbers behind the report, by hand; and what is read from disk."""

import dataclasses
import json
import os
from types import SimpleNamespace

import pytest

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status
from rollouts.analysis import charts, pages, svg
from rollouts.analysis.evaluation import Evaluation, read_run, read_stages
from rollouts.analysis.figures import summarize
from rollouts.analysis.pages import p_value
from rollouts.analysis.selection import choose
from rollouts.analysis.summary import pair, summarise, to_tree
from tests.analysis import synthetic


def write(folder, method, outcomes, attempts=None):
    """An evaluation of tasks a, b, ...: `1` solved, `0` failed at the horizon after 5 steps, `x` infrastructure error, `-` not run."""
    made = []
    for place, letter in enumerate(outcomes):
        if letter == "-":
            continue
        number, attempt = (place, 0) if attempts is None else divmod(place, attempts)
        of = synthetic.task("even" if number % 2 == 0 else "odd", number)
        status = {"1": Status.FINISHED, "0": Status.HORIZON, "x": Status.INFRA_ERROR}[letter]
        one = synthetic.trajectory(of, method, 8 if letter == "1" else 5, status, letter == "1")
        made.append(synthetic.replace(one, attempt=attempt, id=f"{method}-{number}-{attempt}"))
    return Evaluation(method, synthetic.write_evaluation(folder / method, made))


def test_rates_pairs_and_progress_by_hand(tmp_path):
    baseline = write(tmp_path, "sft", "1100x10")
    treatment = write(tmp_path, "mira", "101011x")
    summary = summarise([baseline, treatment], "sft", "mira")
    sft, mira = summary.methods
    assert (sft.episodes, sft.success_rate.n, sft.success_rate.mean) == (7, 6, 0.5)
    assert sft.statuses == {"finished": 3, "horizon": 3, "infra_error": 1}
    assert {name: (rate.mean, rate.n) for name, rate in mira.templates.items()} == {"even": (1.0, 3), "odd": (1 / 3, 3)}
    assert sft.mean_steps == (3 * 8 + 3 * 5) / 6
    assert summary.headline == pair(baseline, treatment)
    counted = summary.headline.comparison
    assert (counted.wins, counted.losses, counted.ties, summary.headline.both, summary.headline.neither) == (1, 1, 3, 2, 1)
    assert summary.headline.difference == 0.0
    assert counted.p_value == 0.75
    means = [mean for mean, _, _ in sft.progress]
    assert means[:6] == [0, 0, 0.25, 0.25, 0.5, 0.5], "0 after no step; subgoals are done after steps 2, 4, 6, 8"
    assert means[6:] == [0.625, 0.625, 0.75], "those that ended after 5 steps keep a half"
    assert sft.pass_at == {}
    tree = to_tree(summary)
    assert tree["paired"] | {"wins": 1, "losses": 1, "ties": 3, "p_value": 0.75} == tree["paired"]
    assert tree["success_rate"]["sft"]["mean"] == 0.5
    json.dumps(tree)


def test_rates_equal_those_of_the_evaluation_and_lost_episodes_are_counted_apart(tmp_path):
    evaluation = write(tmp_path, "sft", "1100x10")
    expected = summarize(evaluation.episodes, lost=[evaluation.episodes[0]] * 2)
    (tmp_path / "sft" / "summary.json").write_text(json.dumps(expected))
    method = summarise([Evaluation("sft", tmp_path / "sft")], "sft", "sft").methods[0]
    assert dataclasses.asdict(method.success_rate) == expected["success_rate"]
    assert {name: dataclasses.asdict(rate) for name, rate in method.templates.items()} == expected["per_template"]
    assert method.mean_steps == expected["mean_steps"]
    assert method.progress[-1][0] == pytest.approx(expected["milestones"])
    assert method.episodes == 9 and method.statuses["infra_error"] == expected["infra_errors"] == 3
    (tmp_path / "sft" / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="not the summary of an evaluation"):
        Evaluation("sft", tmp_path / "sft")


def test_attempts_give_pass_at_k(tmp_path):
    evaluation = write(tmp_path, "m", "100" + "111" + "000", attempts=3)
    method = summarise([evaluation], "m", "m").methods[0]
    assert method.pass_at == pytest.approx({1: (1 / 3 + 1) / 3, 2: (2 / 3 + 1) / 3, 3: 2 / 3})


def test_tasks_are_chosen_by_rule(tmp_path):
    #                                0123456789
    baseline = write(tmp_path, "sft", "0001100110")
    treatment = write(tmp_path, "mira", "1110011010")
    chosen = choose(baseline.by_key, treatment.by_key, 9)
    numbers = [int(key.split("|")[1]) for key in chosen]
    # Won 0 2 6 (even), 1 5 (odd); lost 4 (even), 3 7 (odd); both 8; neither 9.
    # Won and lost in turn; the template shown less often first; even before odd, as in the keys.
    assert numbers == [0, 3, 2, 7, 6, 4, 1, 5, 9]
    assert choose(baseline.by_key, treatment.by_key, 0) == []


def test_an_evaluation_needs_outcomes_and_one_episode_a_task(tmp_path):
    with pytest.raises(UserError, match="no episode here has an outcome"):
        write(tmp_path / "unjudged", "m", "xx")
    of = synthetic.task("t", 0)
    twice = [synthetic.trajectory(of, method, 3, Status.HORIZON, False) for method in ("m", "n")]
    with pytest.raises(UserError, match="two episodes of"):
        Evaluation("m", synthetic.write_evaluation(tmp_path / "twice", twice))


def test_metrics_of_a_killed_and_resumed_run(tmp_path):
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 2.5, "holdout/loss": None}, {"note": "resumed"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "lo')
    assert read_run("r", tmp_path).curves == {"loss": [(1, 3.0), (2, 2.5)]}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1\n{"step": 2, "loss": 1}\n')
    with pytest.raises(UserError, match="line 1"):
        read_run("r", tmp_path)


def test_minutes_from_a_summary_or_from_stage_records(tmp_path):
    (tmp_path / "minutes.json").write_text('{"minutes": {"sft": 2, "actor": 1.5}}')
    assert read_stages(tmp_path / "minutes.json") == {"sft": 2.0, "actor": 1.5}
    folder = tmp_path / "stages"
    folder.mkdir()
    for age, (name, record) in enumerate(
        [
            ("zeta", {"seconds": 90, "complete": True}),
            ("alpha", {"seconds": 30, "complete": True}),
            ("now", {"seconds": 1, "complete": False}),
        ]
    ):
        (folder / f"{name}.json").write_text(json.dumps(record))
        os.utime(folder / f"{name}.json", (1000 + age, 1000 + age))
    (folder / "alpha.serve.json").write_text('{"url": "x"}')
    assert list(read_stages(folder).items()) == [("zeta", 1.5), ("alpha", 0.5)]
    with pytest.raises(UserError, match="expected an object"):
        (tmp_path / "list.json").write_text("[1]")
        read_stages(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 97, [0, 25, 50, 75, 100]), (1e-5, 4e-5, [1e-5, 2e-5, 3e-5, 4e-5]), (5, 5, [2, 4, 6, 8])],
)
def test_ticks_are_round_and_cover_the_data(low, high, expected):
    assert svg.round_ticks(low, high) == pytest.approx(expected)


def test_long_curves_are_thinned_to_means():
    points = [(float(x), float(x % 2)) for x in range(1000)]
    thinned = charts.thin(points, at_most=100)
    assert len(thinned) == 100 and thinned[-1] == (999.0, 0.5)
    assert charts.thin(points[:5]) == points[:5]


def test_small_p_values_are_powers_of_ten():
    assert p_value(0.5) == "0.50" and p_value(0.0312) == "0.031"
    assert p_value(2.83e-7) == "2.8\u00a0×\u00a010⁻⁷"


def test_the_lead_says_so_where_methods_met_different_tasks():
    def evaluation(*tasks):
        return SimpleNamespace(
            episodes=[SimpleNamespace(task=task, policy=SimpleNamespace(temperature=0.0), created="2026-11-20T10:00:00") for task in tasks]
        )

    summary = SimpleNamespace(templates=["buy"])
    assert pages._lead([evaluation("a", "b"), evaluation("a", "b")], summary).startswith("2 methods on the same 2 tasks of 1 template,")
    apart = pages._lead([evaluation("a", "b"), evaluation("b", "c")], summary)
    assert apart.startswith("2 methods on 3 tasks of 1 template, in a real browser; 1 task in common; one attempt each;")
