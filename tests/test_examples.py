"""The scripts in examples/, run as their docstrings say. `served_policy.py` is run by tests/serving/test_example.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mira_jax.trajectories.shards import ShardReader
from tests.synthetic import write_folder

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), str(EXAMPLES)])}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_in_the_list(path):
    assert len(path.read_text().splitlines()) <= 65
    assert f"]({path.name})" in (EXAMPLES / "README.md").read_text()


def test_advantages_are_those_computed_by_hand():
    """p*: subgoal 1 of 2 is done at time 2, the last counts at time 4. r'_t = 0.3 (P_{t+1} - P_t), and 1 at the last step, which is
    not shaped. A_t = (r'_t + V_{t+1} - V_t) / 2 + (1 - V_t) / 2, with V = 0 after the end."""
    rows = [list(map(float, line.split())) for line in run(str(EXAMPLES / "mira_advantages.py")).splitlines()[1:]]
    assert [(row[0], row[1], row[4], row[5]) for row in rows] == [
        (0, 0.0, 0.03, 0.365),
        (1, 0.25, 0.12, 0.41),
        (2, 0.5, 0.03, 0.115),
        (3, 0.75, 1.0, 0.4),
    ]


def test_episodes_are_printed_step_by_step(tmp_path):
    write_folder(tmp_path, 6)
    lines = run(str(EXAMPLES / "read_episodes.py"), str(tmp_path)).splitlines()
    episodes = list(ShardReader(tmp_path))
    assert len(lines) == 2 * len(episodes) + sum(len(episode.steps) for episode in episodes) + 1
    first, step = episodes[0], episodes[0].steps[0]
    assert lines[0] == f"{first.task.id} by synthetic: {first.task.intent}"
    dots = "." * (len(first.steps) - 1)
    assert lines[2] == f"    0 x{dots} __SHOP__/0  Click {step.action.element}"
    assert lines[-1] == f"{sum(episode.success for episode in episodes)} of 6 judged episodes are successes"


def test_a_suite_in_one_file_is_collected_and_labelled(tmp_path):
    """The outcome and the milestone are worked out again, from the addresses that the browser showed."""
    name = "suite.name=own_suite:Buttons"
    episodes, labelled = str(tmp_path / "episodes"), str(tmp_path / "labelled")
    run("-m", "rollouts.collect", "--set", name, "--set", "policy.kind=random", "--set", "episodes=6", "--out", episodes)
    assert "6 episodes labelled" in run("-m", "rollouts.label", "--folder", episodes, "--out", labelled, "--set", name)
    reader = ShardReader(labelled)
    assert len(reader) == 6
    for episode in reader:
        assert episode.task.intent == f'Press "{episode.task.template}" last.'
        for before, after in zip(episode.steps, episode.steps[1:], strict=False):
            pressed = after.page.url.partition("?press=")[2]
            if before.action.name == "Click":
                assert after.state["pressed"][len(before.state["pressed"]) - 1] == pressed
        assert episode.success == (episode.steps[-1].state["pressed"][-1:] == [episode.task.template])
        assert episode.steps[-1].milestones == (episode.task.template in episode.steps[-1].state["pressed"],)


RESULT = """
class Record:
    def __init__(self, **fields):
        self.__dict__.update(fields)


def step(number, action):
    goal = [{"type": "text", "text": "Buy it"}]
    obs = {"url": f"u{number}", "pruned_html": f"page {number}", "goal_object": goal, "last_action_error": ""}
    return Record(step=number, obs=obs, action=action, agent_info={"think": "now"})


class ExpResult:
    def __init__(self, folder):
        self.exp_args = Record(env_args=Record(task_name="webarena.1", task_seed=3, max_steps=9), agent_args=Record(agent_name="agent"))
        self.summary_info = {"cum_reward": 1.0, "err_msg": None, "truncated": False}
        self.steps_info = [step(0, "click('a1')"), step(1, "send_msg_to_user('done')"), step(2, None)]
"""
"""A stand-in for `agentlab.experiments.loop` 0.4.2, which needs an environment of its own."""


def test_the_episodes_of_agentlab_are_converted(tmp_path, monkeypatch):
    module = tmp_path / "agentlab" / "experiments" / "loop.py"
    module.parent.mkdir(parents=True)
    module.write_text(RESULT)
    (tmp_path / "study" / "one").mkdir(parents=True)
    (tmp_path / "study" / "one" / "summary_info.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    script = str(EXAMPLES / "agentlab_to_jsonl.py")
    code = f"import sys, runpy; sys.path.insert(0, '.'); sys.argv += ['study', 'e.jsonl']; runpy.run_path({script!r}, run_name='__main__')"
    assert run("-c", code) == "e.jsonl: 1 episodes\n"
    run("-m", "mira_jax", "convert", "e.jsonl", "--read", "browsergym", "--out", "out")
    (episode,) = ShardReader(tmp_path / "out")
    assert [step.response for step in episode.steps] == ['do(action="Click", element="a1")', 'exit(message="done")']
    assert [step.page.observation for step in episode.steps] == ["page 0", "page 1"] and episode.evidence.page.observation == "page 2"
    assert (episode.task.intent, episode.task.horizon, episode.success) == ("Buy it", 9, True)
