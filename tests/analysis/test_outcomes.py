"""Agreement of a judge with the rules, worked out by hand and with independent implementations."""

import json
import math

import msgspec
import numpy as np
import pytest
import scipy.stats

from mira_jax import cli
from mira_jax.classification import Confusion, confusion
from mira_jax.errors import UserError
from mira_jax.trajectories.records import Outcome, Status
from mira_jax.trajectories.shards import write_shard
from rollouts.analysis.outcomes import analyse, table, to_tree
from rollouts.pages import outcomes as page
from tests import synthetic


def pair(number, truth, verdict, template="copy", task=None, status=None):
    """An episode by rule and the same one by the judge. `verdict` None: the judge gave none."""
    one = synthetic.trajectory(number, 2, success=truth, status=status)
    changed = {"template": template, "id": f"t.{task if task is not None else number}", "seed": 0}
    one = msgspec.structs.replace(one, task=msgspec.structs.replace(one.task, **changed))
    outcome = None if verdict is None else Outcome(success=verdict, score=float(verdict), source="judge")
    return one, msgspec.structs.replace(one, outcome=outcome)


def analysed(pairs, **settings):
    return analyse([judged for _, judged in pairs], [truth for truth, _ in pairs], **settings)


def test_the_figures_of_ten_by_hand():
    #           TP    TP    TP    FP     FN     FN     TN ...
    verdicts = [True, True, True, True, False, False, False, False, False, False, None, None]
    truths = [True, True, True, False, True, True, False, False, False, False, True, False]
    pairs = [pair(number, *both) for number, both in enumerate(zip(truths, verdicts, strict=True))]
    found = analysed(pairs)
    one = found.overall
    assert (found.judge, one.episodes, one.tasks, one.no_verdict, found.unmatched) == ("judge", 10, 10, 2, 0)
    assert one.counts == (3, 1, 2, 4)
    values = {name: figure.value for name, figure in one.figures.items()}
    # kappa: agreement .7; by chance (4 * 5 + 6 * 5) / 100 = .5.
    expected = {"agreement": 0.7, "precision": 0.75, "recall": 0.6, "f1": 6 / 9, "false_positive_rate": 0.2, "kappa": 0.4}
    assert values == pytest.approx(expected)
    for name, hits, n in (("agreement", 7, 10), ("precision", 3, 4), ("recall", 3, 5), ("false_positive_rate", 1, 5)):
        interval = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert (one.figures[name].low, one.figures[name].high) == pytest.approx((interval.low, interval.high))


def test_intervals_of_f1_and_kappa_are_those_of_scipy_s_bootstrap():
    draw = np.random.default_rng(1)
    truths = draw.random(60) < 0.4
    verdicts = truths ^ (draw.random(60) < 0.2)
    pairs = [pair(number, bool(one), bool(other)) for number, (one, other) in enumerate(zip(truths, verdicts, strict=True))]
    found = analysed(pairs, resamples=20_000).overall.figures
    for name in ("f1", "kappa"):
        other = scipy.stats.bootstrap(
            (verdicts, truths), lambda decided, truth, name=name: getattr(confusion(decided, truth), name), paired=True, vectorized=False,
            method="percentile", n_resamples=5000, rng=2,
        ).confidence_interval  # fmt: skip
        assert (found[name].low, found[name].high) == pytest.approx((other.low, other.high), abs=0.02)


def test_attempts_at_a_task_are_no_independent_episodes():
    """Each of six tasks has five attempts, all judged rightly or all wrongly."""
    right = [True, True, True, True, False, False]
    pairs = [pair(5 * task + attempt, True, right[task], task=task) for task in range(6) for attempt in range(5)]
    few, many = analysed(pairs).overall, analysed([pair(i, True, right[i // 5]) for i in range(30)]).overall
    assert (few.episodes, few.tasks, many.tasks) == (30, 6, 30)
    for name in ("agreement", "recall", "f1"):
        widths = [one.figures[name].high - one.figures[name].low for one in (few, many)]
        assert few.figures[name].value == many.figures[name].value and widths[0] > 1.5 * widths[1]


def test_groups_by_template_and_by_class_of_failure():
    pairs = [
        pair(0, True, True, "buy"),
        pair(1, False, True, "buy", status=Status.FINISHED), pair(2, False, False, "buy", status=Status.FINISHED),
        pair(3, False, True, "find", status=Status.STUCK), pair(4, False, None, "find", status=Status.STUCK),
    ]  # fmt: skip
    found = analysed(pairs)
    assert {name: (one.episodes, one.no_verdict, one.figures["agreement"].value) for name, one in found.by_template.items()} == {
        "buy": (3, 0, pytest.approx(2 / 3)), "find": (1, 1, 0.0),
    }  # fmt: skip
    assert {name: (one.episodes, one.no_verdict, one.figures["false_positive_rate"].value) for name, one in found.by_failure.items()} == {
        "wrong_termination": (2, 0, 0.5), "stuck_midway": (1, 1, 1.0),
    }  # fmt: skip
    assert math.isnan(found.by_failure["stuck_midway"].figures["recall"].value)


def test_what_is_in_one_folder_only_is_counted():
    pairs = [pair(number, number < 2, True) for number in range(4)]
    lost = synthetic.trajectory(9, 2, status=Status.INFRA_ERROR)
    by_model = msgspec.structs.replace(pairs[1][0], outcome=Outcome(success=True, score=1.0, source="orm"))
    found = analyse([pairs[0][1], pairs[1][1], pairs[2][1], lost], [pairs[0][0], by_model, pairs[2][0], pairs[3][0], lost])
    # Episode 1 has no outcome by rule, once in each folder; episode 3 was not judged.
    assert (found.overall.episodes, found.unmatched) == (2, 3)


@pytest.mark.parametrize(
    ("judged", "truth", "told"),
    [
        ([], [0], "truth: has no outcome by rule of an episode in folder"),
        ([1], [0], "truth: has no outcome by rule of an episode in folder"),
        ("by rule", [0], "folder: its outcomes are by rule; label it with one judge"),
    ],
)
def test_folders_that_cannot_be_compared_are_refused(judged, truth, told):
    pairs = [pair(number, True, True) for number in range(2)]
    episodes = [pairs[0][0]] if judged == "by rule" else [pairs[number][1] for number in judged]
    with pytest.raises(UserError, match=told):
        analyse(episodes, [pairs[number][0] for number in truth])


def test_without_any_verdict_nothing_is_defined_and_everything_is_written():
    found = analysed([pair(number, bool(number), None, template="<script>alert(1)</script>") for number in range(2)])
    assert (found.overall.episodes, found.overall.no_verdict) == (0, 2)
    assert all(math.isnan(figure.value) for figure in found.overall.figures.values())
    tree = json.loads(json.dumps(to_tree(found), allow_nan=False))
    assert tree["overall"]["figures"]["kappa"] == {"value": None, "low": None, "high": None}
    assert "0 episodes of 0 tasks; 2 without a verdict" in table(found)
    html = page.render(found, "a judge")
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_the_text_and_the_page_show_the_same_figures():
    found = analysed([pair(number, number < 6, number < 4 or number > 8) for number in range(10)])
    text, html = table(found), page.render(found, "a judge")
    for shown in (text, html):
        assert "WebVoyager at least 45 %, WebJudge at least 22 %" in shown
        for name in ("agreement", "f1", "kappa"):
            assert f"{found.overall.figures[name].value:.3f}" in shown
    assert "judge: failure                      2               3" in text


def test_kappa_and_the_false_positive_rate_of_arrays():
    counts = Confusion(np.array([45, 0]), np.array([15, 0]), np.array([25, 0]), np.array([15, 5]))
    # Cohen's example of 100 cases: agreement .6, by chance .6 * .7 + .4 * .3 = .54. The second has one outcome only.
    assert counts.kappa == pytest.approx([0.06 / 0.46, np.nan], nan_ok=True)
    assert counts.false_positive_rate.tolist() == [0.5, 0.0]


def test_the_command_reads_two_folders_and_writes_both_files(tmp_path, capsys):
    pairs = [pair(number, number < 3, number % 2 == 0) for number in range(6)]
    for name, which in (("truth", 0), ("judged", 1)):
        write_shard(tmp_path / name / "episodes-00000.array_record", [both[which] for both in pairs])
    arguments = ["analyze", "outcomes", "--folder", str(tmp_path / "judged")]
    assert cli.main(arguments) == 2 and "truth: name the folder of the same episodes" in capsys.readouterr().err
    arguments += ["--truth", str(tmp_path / "truth"), "--out", str(tmp_path / "a.json"), "--page", str(tmp_path / "a.html")]
    assert cli.main(arguments) == 0
    assert "judge against rules: 6 episodes of 6 tasks" in capsys.readouterr().out
    tree = json.loads((tmp_path / "a.json").read_text())
    assert tree["overall"]["counts"] == {"true_positives": 2, "false_positives": 1, "false_negatives": 1, "true_negatives": 2}
    assert "false-positive" in (tmp_path / "a.html").read_text()
