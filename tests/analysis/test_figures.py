"""The figures of an evaluation against values worked out by hand, and its table of episodes against a CSV reader."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status
from rollouts.analysis import statistics
from rollouts.analysis.evaluation import read_episodes
from rollouts.analysis.figures import COLUMNS, episode_table, summarize, table
from tests.analysis import synthetic
from tests.analysis.browser import HIDDEN, HOSTILE


def episode(template, number, attempt, solved, moves, sites=("shop",)):
    of = synthetic.replace(synthetic.task(template, number), sites=sites)
    made = synthetic.trajectory(of, "m", moves, Status.FINISHED if solved else Status.HORIZON, solved)
    return synthetic.replace(made, id=f"{made.id}-{attempt}", attempt=attempt)


def read(*trajectories):
    return read_episodes(trajectories, Path("here"))


MADE = (
    episode("buy", 1, 0, True, 4),
    episode("buy", 1, 1, False, 6),
    episode("buy", 2, 0, False, 2),
    episode("buy", 2, 1, False, 2),
    episode("ship", 3, 0, True, 8, ("shop", "admin")),
    episode("ship", 3, 1, True, 8, ("admin", "shop")),
)
LOST = synthetic.trajectory(synthetic.task("ship", 4), "m", 0, Status.INFRA_ERROR, False)


def test_the_figures_by_hand():
    summary = summarize(read(*MADE), read(LOST))
    assert summary["success_rate"] == dataclasses.asdict(statistics.rate(3, 6))
    rates = {"buy": statistics.rate(1, 4), "ship": statistics.rate(2, 2)}
    assert summary["per_template"] == {name: dataclasses.asdict(rate) for name, rate in rates.items()}
    assert list(summary["per_domain"]) == ["admin+shop", "shop"] and summary["per_domain"]["shop"]["n"] == 4
    assert {k: (rate["mean"], rate["n"]) for k, rate in summary["pass_at_k"].items()} == {"1": (0.5, 3), "2": (pytest.approx(2 / 3), 3)}
    assert (summary["status"], summary["infra_errors"]) == ({"finished": 3, "horizon": 3, "infra_error": 1}, 1)
    assert (summary["mean_steps"], summary["mean_score"]) == (5, 0.5)
    assert summary["milestones"] == pytest.approx((2 + 3 + 1 + 1 + 4 + 4) / 4 / 6)
    assert summary["policies"] == [{"name": "m", "checkpoint": "runs/m", "temperature": 0.0}]
    assert summary["tasks"]["shop.buy.test.1"] is True and summary["tasks"]["shop.buy.test.1#1"] is False
    json.dumps(summary, allow_nan=False)


def test_tokens_time_and_cost_by_hand():
    summary = summarize(read(*MADE), read(LOST), prompt_price=2.0, response_price=10.0)
    # Step i has 210 + 12 i prompt tokens and 11 of response; n steps have 210 n + 6 n (n - 1).
    prompt = sum(210 * n + 6 * n * (n - 1) for n in (4, 6, 2, 2, 8, 8))
    assert summary["tokens"] == {
        "prompt": {"total": prompt, "per_episode": prompt / 6},
        "response": {"total": 330, "per_episode": 55.0},
    }
    assert summary["seconds"]["browser"] == pytest.approx({"total": 1.8, "per_episode": 0.3, "per_step": 0.06})
    assert summary["seconds"]["policy"] == pytest.approx({"total": 5.4, "per_episode": 0.9, "per_step": 0.18})
    usd = (prompt * 2 + 330 * 10) / 1e6
    assert summary["cost"] == pytest.approx(
        {"usd": usd, "usd_per_episode": usd / 6, "usd_per_success": usd / 3, "prompt_price": 2.0, "response_price": 10.0}
    )
    assert summarize(read(*MADE[2:4]), (), 1.0, 1.0)["cost"]["usd_per_success"] is None


def test_an_evaluation_without_an_outcome_has_no_means():
    summary = summarize((), read(LOST))
    assert summary["success_rate"] == {"mean": 0.0, "low": 0.0, "high": 1.0, "n": 0}
    assert (summary["pass_at_k"], summary["mean_steps"], summary["seconds"]["policy"]["per_step"]) == ({}, None, None)


def test_the_text_has_domains_and_pass_at_k_where_there_are_several():
    lines = table(summarize(read(*MADE), read(LOST))).splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["admin+shop", "shop", "buy", "ship", "all", "pass@1", "pass@2"]
    assert lines[5] == "all          50.0 %    18.8 -  81.2 %      6"  # Wilson of 3 in 6
    assert lines[-1] == "3 finished, 3 horizon, 1 infra_error"
    alone = table(summarize(read(MADE[0]))).splitlines()
    assert [line.split()[0] for line in alone[1:-1]] == ["buy", "all"]


def test_the_table_of_episodes_is_a_line_each():
    rows = list(csv.reader(io.StringIO(episode_table(read(*MADE[::-1], LOST)))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 8
    assert rows[1] == ["shop.buy.test.1", "buy", "shop", "0", "finished", "1", "1.0", "4", "912", "44", "0.72", "0.24"]
    assert rows[-1] == ["shop.ship.test.4", "ship", "shop", "0", "infra_error", "", "", "0", "0", "0", "0.0", "0.0"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://127.0.0.1:9";"x")'])
def test_no_cell_is_a_formula(name):
    of = synthetic.replace(MADE[0].task, id=name, template=name, sites=(name,))
    (_, row) = csv.reader(io.StringIO(episode_table(read(synthetic.replace(MADE[0], task=of))), newline=""))
    assert row[:3] == ["'" + name] * 3


@pytest.mark.parametrize("name", ['a,"b"\n"c",d', "x\r\ny", "x\ry", *HOSTILE, HIDDEN, "a=b"])
def test_names_survive_the_table(name):
    of = synthetic.replace(MADE[0].task, id=name)
    (_, row) = csv.reader(io.StringIO(episode_table(read(synthetic.replace(MADE[0], task=of))), newline=""))
    assert row[0] == name and len(row) == len(COLUMNS)


def test_two_policies_are_not_taken_for_two_attempts():
    other = synthetic.replace(MADE[0], policy=synthetic.replace(MADE[0].policy, name="other"))
    with pytest.raises(UserError, match=r"here: two episodes of shop.buy.test.1\|1\|0; an evaluation has one policy"):
        read(MADE[0], other)
