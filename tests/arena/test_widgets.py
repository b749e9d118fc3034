"""The arena without a browser: each script has its counterpart, and the episodes stay apart from those of Chromium."""

import hashlib

from mira_arena.sites.registry import APPLICATIONS, application
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader
from rollouts import collect
from rollouts.suites.arena.widgets import SCRIPTS


def test_episodes_of_both_drivers_are_not_mixed(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), *(part for setting in ("templates=[buy]", "policy.kind=expert") for part in ("--set", setting))]
    assert collect.COMMAND.run([*arguments, "--set", "browser.driver=asgi", "--set", "episodes=3"]) == 0
    assert {trajectory.status for trajectory in ShardReader(tmp_path)} == {Status.FINISHED}
    capsys.readouterr()
    assert collect.COMMAND.run([*arguments, "--set", "episodes=4"]) == 2
    assert "collected with other settings (browser.driver)" in capsys.readouterr().err


def test_every_script_has_a_counterpart():
    scripts = {hashlib.sha256(application(name).script.encode()).hexdigest() for name in APPLICATIONS if application(name).script}
    assert scripts == set(SCRIPTS)
