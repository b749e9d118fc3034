"""A user's own suite, by `module:Class`."""

import msgspec
import pytest

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.trajectories.shards import ShardReader
from rollouts.collect import CollectConfig
from rollouts.engine.pool import collect
from rollouts.engine.worker import SuiteConfig, WorkerConfig
from rollouts.suites import make_suite
from tests.rollouts.sites import config

OWN = "tests.suites.own_suite:OwnSuite"


def test_episodes_of_an_own_suite_are_collected(tmp_path):
    collect(config(episodes=2, suite={"name": OWN, "options": {"horizon": 5}}), tmp_path)
    episodes = ShardReader(tmp_path)
    assert [(episode.task.suite, episode.task.horizon, episode.status.value) for episode in episodes] == [("own", 5, "finished")] * 2


def test_a_ray_worker_makes_it_from_the_config_that_it_is_sent():
    sent = msgspec.msgpack.encode(WorkerConfig(suite=SuiteConfig(OWN, {"horizon": 4})))
    settings = msgspec.msgpack.decode(sent, type=WorkerConfig)
    assert make_suite(settings.suite.name, **settings.suite.options).horizon == 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (OWN, {"horizn": 1}, "unknown key suite.options.horizn; did you mean suite.options.horizon?"),
        (OWN, {"horizon": 0}, "suite.options.horizon: 0; it must be at least 1"),
        ("tests.suites.own_suite:NoOptions", {}, "suite.name: 'tests.suites.own_suite:NoOptions' has no dataclass Options; give it one"),
        (
            "tests.suites.own_suite:Nothing",
            {},
            "suite.name: 'tests.suites.own_suite:Nothing' can't be imported (module 'tests.suites.own",
        ),
        (
            "no_such_package.suite:A",
            {},
            "suite.name: 'no_such_package.suite:A' can't be imported (No module named 'no_such_package')",
        ),
        (":A", {}, "suite.name: ':A' can't be imported (Empty module name); give module:Class, and install its package or put its folder"),
        (
            "bazaar",
            {},
            "suite.name: 'bazaar' is none of arena, miniwob, seeking, tasks, web_seeking, webarena_infinity, webarena_lite, "
            "nor the module:Class",
        ),
    ],
)
def test_wrong_names_and_options_are_one_message_before_anything_runs(name, options, message):
    with pytest.raises(UserError) as of_config:
        build(CollectConfig, {"suite": {"name": name, "options": options}})
    with pytest.raises(UserError) as of_suite:
        make_suite(name, **options)
    assert str(of_config.value).startswith(message) and str(of_suite.value).startswith(message)
