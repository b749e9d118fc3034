"""The quality of subgoals, by hand and against scipy and loops."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import write_shard
from rollouts import analyze
from rollouts.analysis.bootstrap import Bootstrap
from rollouts.analysis.grades import auroc, kendall_tau, spearman
from rollouts.analysis.subgoals import Ending, analyse, endings, table, to_tree
from tests.labels.episodes import episode


def ending(number, success, *done, task=None):
    return Ending(f"e{number}", task or f"t{number}", success, tuple(map(bool, done)))


SIX = [
    ending(0, False, 0, 0), ending(1, False, 1, 0), ending(2, False, 1, 0),
    ending(3, True, 1, 0), ending(4, True, 1, 1), ending(5, True, 1, 1),
]  # fmt: skip
TRUTH = [
    ending(0, False, 0, 0), ending(1, False, 0, 0), ending(2, False, 1, 0),
    ending(3, True, 1, 1), ending(4, True, 1, 1), ending(5, True, 1, 1, 1),
]  # fmt: skip


def found(labelled=SIX, truth=TRUTH, **keys):
    return analyse(labelled, 0, truth, **{"level": 0.95, "resamples": 200, "seed": 0, **keys})


def test_figures_by_hand():
    findings = found()
    values = {name: figure.value for name, figure in findings.figures.items()}
    # Of 9 pairs of a success and a failure, 7 are in order, and 2 have equal shares.
    assert values["auroc"] == pytest.approx(8 / 9)
    # 7 concordant pairs of 15; 1/2 occurs three times and 1 twice, which ties 3 + 1 pairs, and outcomes tie 3 + 3.
    assert values["tau"] == pytest.approx(7 / math.sqrt((15 - 4) * (15 - 6)))
    # Episode 5 has three true milestones and is left out: 4 true positives, 1 false positive, 1 false negative of 10.
    assert (values["precision"], values["recall"], values["f1"]) == pytest.approx((4 / 5, 4 / 5, 4 / 5))
    assert (findings.matched, findings.matched_episodes) == (10, 5)
    # The shares are 0, 1/2, 1/2, 1/2, 1, 1 and truly 0, 0, 1/2, 1, 1, 1.
    assert values["mae"] == pytest.approx((1 / 2 + 1 / 2) / 6)
    assert values["spearman"] == pytest.approx(stats.spearmanr([0, 1, 1, 1, 2, 2], [0, 0, 1, 2, 2, 2]).statistic)
    assert {count: rate.mean for count, rate in findings.by_done.items()} == {0: 0, 1: pytest.approx(1 / 3), 2: 1}
    assert {name: rate.attempts for name, rate in findings.by_share.items()} == {"none": 1, "to 1/2": 3, "all": 2}
    assert all(figure.low <= figure.value <= figure.high for figure in findings.figures.values())


def test_agrees_with_scipy_on_random_episodes():
    draw = np.random.default_rng(1)
    share, success, other = draw.integers(0, 5, 60), draw.integers(0, 2, 60), draw.integers(0, 4, 60)
    ones = Bootstrap(60, 0.95, 100, 0)
    outcomes = ones.tables(np.arange(60), share, success, (5, 2))
    area = stats.mannwhitneyu(share[success == 1], share[success == 0]).statistic / (success.sum() * (1 - success).sum())
    assert auroc(outcomes)[0] == pytest.approx(area)
    assert kendall_tau(outcomes)[0] == pytest.approx(stats.kendalltau(share, success).statistic)
    ranks = ones.tables(np.arange(60), share, other, (5, 4))
    assert spearman(ranks)[0] == pytest.approx(stats.spearmanr(share, other).statistic)
    # A resample is the same as the episodes repeated by its weights.
    weights = ones.weights_RxT[7].astype(int)
    again = stats.kendalltau(np.repeat(share, weights), np.repeat(success, weights)).statistic
    assert kendall_tau(outcomes)[7] == pytest.approx(again)


def test_the_bootstrap_takes_tasks_whole():
    # Two tasks of 50 equal episodes each: a resample has both, or one twice, for which no figure is defined.
    labelled = [ending(number, number < 50, number < 50, task="a" if number < 50 else "b") for number in range(100)]
    figure = found(labelled, None).figures["auroc"]
    assert (figure.value, figure.low, figure.high) == (1, 1, 1)
    one = found([ending(number, number % 2 == 0, number % 3 == 0, task="a") for number in range(100)], None).figures["tau"]
    assert one.low == one.value == one.high


def test_figures_that_are_not_defined_are_null():
    findings = found([ending(0, True, 0), ending(1, True, 0)], [ending(0, True, 0), ending(1, True, 0)])
    assert math.isnan(findings.figures["auroc"].value) and math.isnan(findings.figures["f1"].value)
    assert "nan" in table(findings, {}) and to_tree(findings)["by_done"]["0"]["mean"] == 1.0
    with pytest.raises(UserError, match="no episode has an outcome and milestones"):
        found([])
    with pytest.raises(UserError, match="none of its episodes is in folder"):
        found(truth=[ending(99, True, 1)])


def turn(*rows):
    return [("__SHOP__/", "page", 'do(action="Click", element="1")')] * len(rows)


def test_the_command_writes_json_and_a_page(tmp_path, capsys):
    rows = ((True, False), (False, True))
    episodes = [
        episode(1, *turn(*rows), milestones=rows),
        episode(2, *turn(*rows), milestones=((False, False),) * 2, success=False),
        episode(3, *turn(*rows)),
        episode(4, *turn(*rows), milestones=rows, status=Status.INFRA_ERROR),
    ]
    kept, without = endings(episodes)
    assert [one.done for one in kept] == [(True, True), (False, False)] and without == 1
    write_shard(tmp_path / "labelled" / "episodes-00000.array_record", episodes)
    used = {"requests": 7, "cached": 0, "repaired": 0, "invalid": 0, "prompt_tokens": 1200, "response_tokens": 30, "cost": 0.5}
    (tmp_path / "labelled" / "usage.json").write_text(json.dumps({"checker": used}))
    folder, out, page = (str(tmp_path / name) for name in ("labelled", "out.json", "page.html"))
    command = ["subgoals", "--folder", folder, "--truth", folder, "--out", out, "--page", page]
    assert analyze.COMMAND.run(command) == 0
    said = capsys.readouterr().out
    assert "2 episodes of 2 tasks, 50.0% successes; 1 more without milestones" in said
    assert "checker: 7 requests, 1,200 + 30 tokens, 0.5000 USD" in said and "0.4585" in said
    tree = json.loads((tmp_path / "out.json").read_text())
    assert tree["figures"]["f1"]["value"] == 1 and tree["paper"]["recall"] == 0.6 and tree["usage"]["checker"]["requests"] == 7
    html = (tmp_path / "page.html").read_text()
    assert "Kendall" in html and html.count("<svg") == 2 and "<script" not in html
    assert analyze.COMMAND.run(["outcome", "--folder", folder]) == 2 and analyze.COMMAND.run([]) == 2
    assert "is none of subgoals, outcomes" in capsys.readouterr().err
