"""The figures of an evaluation against values worked out by hand, and its table of episodes against a CSV reader."""

import csv
import io
from pathlib import Path

import pytest
import scipy.stats

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Seconds, Status
from mira_jax.trajectories.summary import Cost, Evaluated, Rate, Spent
from rollouts.analysis import figures
from rollouts.analysis.evaluation import read_episodes
from rollouts.analysis.figures import COLUMNS, episode_table, gather, summarize, table
from tests.analysis import synthetic
from tests.pages.browser import HIDDEN, HOSTILE


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


def mean(rate):
    return rate.mean, rate.tasks, rate.attempts


def text(made, lost=()):
    episodes = read(*made)
    return table(gather({"m": summarize("m", episodes, read(*lost))}, episodes))


def test_the_figures_by_hand():
    method = summarize("m", read(*MADE), read(LOST))
    assert mean(method.success_rate) == (0.5, 3, 6) and method.success_rate.method == "m"
    assert {name: mean(rate) for name, rate in method.per_template.items()} == {"buy": (0.25, 2, 4), "ship": (1.0, 1, 2)}
    assert {name: mean(rate) for name, rate in method.per_domain.items()} == {"admin+shop": (1.0, 1, 2), "shop": (0.25, 2, 4)}
    assert {k: mean(rate) for k, rate in method.pass_at_k.items()} == {1: (0.5, 3, 6), 2: (pytest.approx(2 / 3), 3, 6)}
    assert method.pass_at_k[1] == method.success_rate
    assert (method.status, method.infra_errors) == ({"finished": 3, "horizon": 3, "infra_error": 1}, 1)
    assert (method.mean_steps, method.mean_score) == (5, 0.5)
    assert mean(method.milestones) == (pytest.approx((2 + 3 + 1 + 1 + 4 + 4) / 4 / 6), 3, 6)
    assert method.policies == [Evaluated(name="m", checkpoint="runs/m", temperature=0.0)]
    assert method.tasks == {"shop.buy.test.1|1": (2, 1), "shop.buy.test.2|2": (2, 0), "shop.ship.test.3|3": (2, 2)}


def test_more_attempts_do_not_make_more_tasks():
    """What one attempt says, said four times over, has the same interval: Wilson's of 3 in 8 tasks by scipy."""
    once = [episode("buy", number, 0, number < 3, 4) for number in range(8)]
    often = [episode("buy", number, attempt, number < 3, 4) for number in range(8) for attempt in range(4)]
    expected = scipy.stats.binomtest(3, 8).proportion_ci(method="wilson")
    for made, attempts in ((once, 8), (often, 32)):
        rate = summarize("m", read(*made)).success_rate
        assert (rate.low, rate.high, rate.tasks, rate.attempts) == (pytest.approx(expected.low), pytest.approx(expected.high), 8, attempts)


def test_a_task_that_lost_attempts_counts_as_much_as_the_others():
    made = [episode("buy", 1, attempt, True, 4) for attempt in range(4)] + [episode("buy", 2, 0, False, 4)]
    assert mean(summarize("m", read(*made)).success_rate) == (0.5, 2, 5)


def test_tokens_time_and_cost_by_hand():
    method = summarize("m", read(*MADE), read(LOST), prices=(2.0, 10.0))
    # Step i has 210 + 12 i prompt tokens and 11 of response; n steps have 210 n + 6 n (n - 1).
    prompt = sum(210 * n + 6 * n * (n - 1) for n in (4, 6, 2, 2, 8, 8))
    assert method.tokens == {
        "prompt": Spent(total=prompt, per_episode=prompt / 6, per_step=prompt / 30),
        "response": Spent(total=330, per_episode=55.0, per_step=11.0),
    }
    browser, policy = method.seconds["browser"], method.seconds["policy"]
    assert (browser.total, browser.per_episode, browser.per_step) == pytest.approx((1.8, 0.3, 0.06))
    assert (policy.total, policy.per_episode, policy.per_step) == pytest.approx((5.4, 0.9, 0.18))
    usd = (prompt * 2 + 330 * 10) / 1e6
    assert method.cost == Cost(usd=usd, usd_per_episode=usd / 6, usd_per_success=usd / 3, prompt_price=2.0, response_price=10.0)
    assert summarize("m", read(*MADE[2:4]), prices=(1.0, 1.0)).cost.usd_per_success is None
    assert summarize("m", read(*MADE)).cost is None, "prices that are not known are not 0"


def test_an_evaluation_without_an_outcome_has_no_means():
    method = summarize("m", (), read(LOST))
    assert method.success_rate == Rate(method="m", mean=0.0, low=0.0, high=1.0, tasks=0, attempts=0)
    assert (method.pass_at_k, method.mean_steps, method.seconds["policy"].per_step, method.milestones) == ({}, None, None, None)


def test_pass_at_is_the_mean_over_tasks_that_have_the_attempts():
    rates = figures.pass_at("m", [(4, 1), (4, 0), (2, 2)])
    assert {k: mean(rate) for k, rate in rates.items()} == {1: (pytest.approx(5 / 12), 3, 10), 2: (0.5, 3, 10), 4: (0.5, 2, 8)}
    assert all(0 <= rate.low < rate.mean < rate.high <= 1 for rate in rates.values())
    assert list(figures.pass_at("m", [(7, 1)])) == [1, 2, 4, 7]
    assert list(figures.pass_at("m", [(1, 1)])) == [1]
    assert figures.pass_at("m", []) == {}


def test_the_text_has_domains_and_pass_at_k_where_there_are_several():
    lines = text(MADE, [LOST]).splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["admin+shop", "shop", "buy", "ship", "all", "pass@1", "pass@2"]
    assert lines[0].split() == ["success", "95", "%", "interval", "tasks", "attempts"]
    assert lines[5].startswith("all          50.0 %") and lines[5].split()[-2:] == ["3", "6"]
    assert lines[-1] == "3 finished, 3 horizon, 1 infra_error"
    alone = text(MADE[:1])
    assert [line.split()[0] for line in alone.splitlines()[1:-1]] == ["buy", "all"]
    assert "100.0 %    20.7 - 100.0 %" in alone  # Wilson of 1 in 1


@pytest.mark.parametrize("field", ["score", "seconds"])
def test_a_number_that_is_not_finite_is_refused(field):
    made = MADE[0]
    if field == "score":
        made = synthetic.replace(made, outcome=synthetic.replace(made.outcome, score=float("nan")))
    else:
        step = synthetic.replace(made.steps[0], seconds=Seconds(browser=float("inf")))
        made = synthetic.replace(made, steps=(step, *made.steps[1:]))
    with pytest.raises(UserError, match=r"here: the score or the seconds of shop\.buy\.test\.1\|1\|0 are not finite"):
        read(made)


def test_the_table_of_episodes_is_a_line_each():
    rows = list(csv.reader(io.StringIO(episode_table(read(*MADE[::-1], LOST)))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 8
    no_planner = ["0", "0", "0.0", "0", "0", "0"]
    assert rows[1] == ["shop.buy.test.1", "buy", "shop", "0", "finished", "1", "1.0", "4", "912", "44", "0.72", "0.24", *no_planner]
    assert rows[-1] == ["shop.ship.test.4", "ship", "shop", "0", "infra_error", "", "", "0", "0", "0", "0.0", "0.0", *no_planner]


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
