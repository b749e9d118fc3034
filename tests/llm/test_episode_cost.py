"""benchmarks/episode_cost.py: real commands against its counting server, and sums worked out by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import episode_cost
from mira_jax.errors import UserError
from mira_jax.trajectories.instructions import INSTRUCTIONS
from mira_jax.trajectories.shards import ShardReader
from tests.labels.episodes import shopping


def test_every_role_is_asked_and_counted(tmp_path):
    done = subprocess.run(
        [sys.executable, "benchmarks/episode_cost.py", "--episodes", "2", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    used = json.loads((tmp_path / "characters.json").read_text())
    episodes = list(ShardReader(tmp_path / "episodes"))
    steps = sum(len(one.steps) for one in episodes)
    assert {role: one["requests"] for role, one in used.items() if role not in ("planner", "checker of subgoals")} == {
        "policy": steps, "writer of subgoals": 2, "judge": 4,
    }  # fmt: skip
    # The planner writes its plan and checks it after each step; at most 8 steps are in a question of the checker.
    assert used["planner"]["requests"] >= steps and used["checker of subgoals"]["requests"] == sum(
        -(-len(one.steps) // 8) for one in episodes
    )
    recorded = sum(step.planner_tokens.prompt for one in episodes for step in one.steps)
    assert recorded == pytest.approx(used["planner"]["prompt"] / 4, rel=0.01)
    assert f"2 episodes, {steps} steps" in done.stdout and "| policy |" in done.stdout


def test_costs_are_characters_by_price():
    price = episode_cost.Price("m", prompt=2.0, response=10.0, source="", as_of="")
    used = {"policy": episode_cost.Used(3, 4_000_000, 400_000), "judge": episode_cost.Used(1, 400_000, 40_000)}
    # 1,000,000 tokens at 2 USD and 100,000 at 10 USD per million; a tenth of that.
    assert used["policy"].cost(price) == pytest.approx(3.0)
    assert episode_cost.table(used, [price], 2, 3)[-3:] == [
        "| policy | 3 | 1,000 k | 100 k | 3.00 |",
        "| judge | 1 | 100 k | 10 k | 0.30 |",
        "| all | 4 | 1,100 k | 110 k | 3.30 |",
    ]


def test_the_policy_reads_its_instructions_history_and_page_at_each_step():
    episode = shopping(1)
    used = episode_cost.of_policy([episode])
    assert used.requests == 5 and used.response == sum(len(step.response) for step in episode.steps)
    texts = sum(len(step.page.observation) for step in episode.steps)
    assert 5 * len(INSTRUCTIONS) + texts < used.prompt < 5 * len(INSTRUCTIONS) + texts + 5 * 500


@pytest.mark.parametrize(
    "content",
    ["", "prices: 5", "[]", "prices: [{model: m}]", "prices: [{model: m, prompt: x, response: 1, source: s, as_of: t}]", "{", "\0"],
)
def test_what_is_no_price_list_is_refused(content, tmp_path):
    (tmp_path / "prices.yaml").write_text(content)
    with pytest.raises(UserError, match="not a list of prices"):
        episode_cost.read_prices(tmp_path / "prices.yaml")


def test_the_price_list_names_its_sources():
    prices = episode_cost.read_prices(Path("configs/chat/prices.yaml"))
    assert all("https://" in price.source and price.as_of and 0 < price.prompt < price.response for price in prices)
    with pytest.raises(UserError, match="not a list of prices"):
        episode_cost.read_prices(Path("nowhere.yaml"))
