"""The numbers behind the report, by hand; and what is read from disk."""

import json
import os
from types import SimpleNamespace

import msgspec
import pytest

from mira_jax.errors import UserError
from mira_jax.trajectories import diagnostics
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import Spool
from rollouts.analysis.evaluation import EPISODES, LOST, Evaluation, read_episodes, read_run, read_stages
from rollouts.analysis.figures import summarize
from rollouts.analysis.summary import summarise, table
from rollouts.pages import charts, svg
from rollouts.pages import report as report_page
from rollouts.pages.selection import choose
from tests.analysis import synthetic
from tests.trajectories.test_summary import SUMMARY


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
    findings = summarise([baseline, treatment], "sft", "mira")
    sft, mira = findings.summary.methods["sft"], findings.summary.methods["mira"]
    assert (sft.success_rate.tasks, sft.success_rate.mean, sft.infra_errors) == (6, 0.5, 1)
    assert sft.status == {"finished": 3, "horizon": 3, "infra_error": 1}
    assert {name: (rate.mean, rate.tasks) for name, rate in mira.per_template.items()} == {"even": (1.0, 3), "odd": (1 / 3, 3)}
    assert sft.mean_steps == (3 * 8 + 3 * 5) / 6
    (one,) = findings.summary.comparisons
    assert one == findings.headline.comparison
    assert (one.wins, one.losses, one.ties, one.tasks, one.difference) == (1, 1, 3, 5, 0.0)
    assert one.p_value == 1.0 and (one.test, one.sided) == ("exact McNemar test", "two-sided")
    assert one.left_out == ["shop.even.test.4", "shop.even.test.6"]
    means = [rate.mean for rate in sft.milestones_after_steps]
    assert means[:6] == [0, 0, 0.25, 0.25, 0.5, 0.5], "0 after no step; subgoals are done after steps 2, 4, 6, 8"
    assert means[6:] == [0.625, 0.625, 0.75], "those that ended after 5 steps keep a half"
    assert sft.milestones_after_steps[0].high == 0.0 < sft.milestones_after_steps[1].high, "by definition, and by observation"
    assert list(sft.pass_at_k) == [1] and sft.pass_at_k[1] == sft.success_rate


def test_every_two_methods_are_paired_and_the_treatment_comes_first(tmp_path):
    outcomes = {"sft": "100000", "filtered_bc": "111110", "other": "110000", "mira": "111000"}
    evaluations = [write(tmp_path, method, letters) for method, letters in outcomes.items()]
    comparisons = summarise(evaluations, "sft", "mira").summary.comparisons
    assert [(one.treatment, one.baseline, one.wins, one.losses) for one in comparisons] == [
        ("mira", "sft", 2, 0), ("mira", "filtered_bc", 0, 2), ("mira", "other", 1, 0),
        ("filtered_bc", "sft", 4, 0), ("other", "sft", 1, 0), ("other", "filtered_bc", 0, 3),
    ]  # fmt: skip
    assert [comparisons[0].p_value, comparisons[3].p_value] == [2 * 2**-2, 2 * 2**-4]


def test_evaluations_of_other_tasks_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"not the same tasks: 1 only in sft \(such as shop.odd.test.3\)"):
        summarise([write(tmp_path, "sft", "1101"), write(tmp_path, "mira", "110")], "sft", "mira")


def test_rates_equal_those_of_the_evaluation_and_lost_episodes_are_counted_apart(tmp_path):
    evaluation = write(tmp_path, "sft", "1100x10")
    lost = [synthetic.trajectory(synthetic.task("even", number), "sft", 0, Status.INFRA_ERROR, False) for number in (8, 10)]
    for one in lost:
        Spool(tmp_path / "sft" / EPISODES / LOST).add(one)
    expected = summarize("sft", evaluation.episodes, read_episodes(lost, tmp_path))
    method = summarise([Evaluation("sft", tmp_path / "sft")], "sft", "sft").summary.methods["sft"]
    assert method == expected and method.infra_errors == 3 and method.status["infra_error"] == 3


def test_attempts_give_pass_at_k(tmp_path):
    evaluation = write(tmp_path, "m", "100" + "111" + "000", attempts=3)
    method = summarise([evaluation], "m", "m").summary.methods["m"]
    assert {k: rate.mean for k, rate in method.pass_at_k.items()} == pytest.approx({1: (1 / 3 + 1) / 3, 2: (2 / 3 + 1) / 3, 3: 2 / 3})


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


def test_the_diagnostics_of_a_run_are_read_with_its_metrics(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert read_run("r", tmp_path).diagnostics is None
    written = synthetic.write_diagnostics(tmp_path)
    assert read_run("r", tmp_path).diagnostics == written
    (tmp_path / diagnostics.FILE).write_text('{"update": 2}')
    with pytest.raises(UserError, match=r"not the diagnostics of a run: .*missing required field .*; write it again with `mira diagnose "):
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


def test_the_lead_says_so_where_methods_met_different_tasks():
    def evaluation(*tasks):
        return SimpleNamespace(
            episodes=[SimpleNamespace(task=task, policy=SimpleNamespace(temperature=0.0), created="2026-11-20T10:00:00") for task in tasks]
        )

    findings = SimpleNamespace(templates=["buy"])
    assert report_page._lead([evaluation("a", "b"), evaluation("a", "b")], findings).startswith(
        "2 methods on the same 2 tasks of 1 template;"
    )
    apart = report_page._lead([evaluation("a", "b"), evaluation("b", "c")], findings)
    assert apart.startswith("2 methods on 3 tasks of 1 template; 1 task in common; one attempt each;")


def test_the_table_holds_every_policy_comparison_and_stage():
    lines = table(msgspec.structs.replace(SUMMARY, minutes={"a": 0.04})).splitlines()
    assert "sft              64.0%    56.1% -  71.2%     150" in lines
    assert "mira against sft: +6.7 points, 95 % interval +1.6 to +12.6" in lines
    assert "  13 wins, 3 losses, 134 ties; exact McNemar test, two-sided: p = 0.021" in lines
    assert lines[-1] == "minutes: a 0.0; in all 0.0"
