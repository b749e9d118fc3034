"""Rollouts on a Ray cluster of two nodes, both on this machine: the episodes of the local pool, whatever dies."""

import os
import signal
import subprocess
import sys
import threading
import time

import msgspec
import pytest

from mira_jax.commands import log_to_stderr
from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.trajectories.shards import ShardReader, Spool
from rollouts.engine.pool import RolloutConfig, collect, lost_episodes

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the package ray is not installed")

pytestmark = pytest.mark.timeout(600)
BROWSER = {"contexts": 2, "draw": False}
EPISODES = 60
"""Enough for the second worker to be at work before the first has done them all."""
MARK = "XDG_MIRA_JAX_TEST"
"""An environment variable that every process of the cluster inherits. Browsers get only those that `rollouts.web.browser` passes on."""


@pytest.fixture(scope="module")
def cluster():
    os.environ[MARK] = f"{os.getpid()}"
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()
        del os.environ[MARK]


def config(cluster=None, **changes):
    ray = {"pool": "ray", "ray": {"address": cluster.address, "cpus": 1}} if cluster else {}
    tree = {"templates": ["show_sorted", "show_issues"], "observation": {"handles": "name", "compact": True}, "browser": BROWSER}
    return build(RolloutConfig, tree | ray | changes)


def content(folder):
    """Every episode by its key, without times and what is drawn anew for each."""
    episodes = list(ShardReader(folder))
    found = {}
    for episode in episodes:
        steps = tuple(msgspec.structs.replace(step, seconds=None) for step in episode.steps)
        found[episode.key] = msgspec.structs.replace(episode, id="", created="", steps=steps)
    assert len(found) == len(episodes)
    return found


def browsers():
    """Process ids of the browsers in the cluster."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline") as command, open(f"/proc/{entry}/environ") as environment:
                program, arguments = command.read().split("\0", 1)
                if "chrom" in program and "--type=" not in arguments and f"{MARK}={os.environ[MARK]}\0" in environment.read():
                    found.append(int(entry))
        except (OSError, ValueError):
            continue
    return found


def wait_until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def test_a_node_that_dies_costs_retries_and_no_episode(cluster, tmp_path, capsys):
    log_to_stderr()

    def kill_node():
        wait_until(lambda: len(browsers()) == 2)
        before = len(Spool(tmp_path / "ray").paths())
        wait_until(lambda: len(Spool(tmp_path / "ray").paths()) >= before + 4)
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill_node, daemon=True)
    killer.start()
    tally = collect(config(cluster, episodes=EPISODES), tmp_path / "ray")
    killer.join()
    assert tally.status == {"finished": EPISODES} and tally.retries >= 1
    retried = [line for line in capsys.readouterr().err.splitlines() if line.startswith("episode ")]
    assert len(retried) == tally.retries and all(" failed and is repeated: worker: " in line for line in retried)
    collected = content(tmp_path / "ray")
    assert len(collected) == EPISODES
    collect(config(episodes=6), tmp_path / "local")
    local = content(tmp_path / "local")
    assert len(local) == 6 and {key: collected[key] for key in local} == local
    assert collect(config(cluster, episodes=EPISODES), tmp_path / "ray").skipped == EPISODES
    wait_until(lambda: not browsers())


def test_a_suite_of_the_user_is_sent_to_the_workers(cluster, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend("examples")
    changes = {"suite": {"name": "own_suite:Buttons"}, "templates": None, "episodes": 2, "policy": {"kind": "random"}}
    ray = {"address": cluster.address, "cpus": 1}
    with pytest.raises(UserError, match=r"no Ray worker starts: .*'own_suite:Buttons' can't be imported .* or name it in ray\.py_modules"):
        collect(config(cluster, **changes), tmp_path / "ray")
    with pytest.raises(UserError, match=r"ray\.py_modules: examples/none\.py: neither a folder nor a \.py file"):
        collect(config(cluster, **changes, ray=ray | {"py_modules": ["examples/none.py"]}), tmp_path / "ray")
    collect(config(cluster, **changes, ray=ray | {"py_modules": ["examples/own_suite.py"]}), tmp_path / "ray")
    collect(config(**changes), tmp_path / "local")
    assert len(content(tmp_path / "local")) == 2 and content(tmp_path / "ray") == content(tmp_path / "local")


def test_sigterm_ends_the_workers_and_keeps_what_is_done(cluster, tmp_path):
    settings = ["pool=ray", f"ray.address={cluster.address}", "ray.cpus=1", "templates=[show_sorted]", "browser.draw=false"]
    command = [sys.executable, "-m", "rollouts.collect", "--out", str(tmp_path), *(part for one in settings for part in ("--set", one))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: Spool(tmp_path).paths() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 130 and "run the same command again to resume" in errors
    assert "Traceback" not in errors
    wait_until(lambda: not browsers())


def test_what_is_wrong_on_the_cluster_is_one_message(cluster, tmp_path):
    for changes, message in (
        ({"ray": {"address": "127.0.0.1:9"}}, "ray.address: no connection to 127.0.0.1:9: .*refused"),
        ({"ray": {"address": cluster.address, "cpus": 99}}, "ray.cpus: no node of the cluster has 99 CPUs"),
        ({"browser": {"executable": "/no/such/browser"}}, "no Ray worker starts: .*: browser.executable: /no/such/browser is not"),
    ):
        with pytest.raises(UserError, match=message):
            collect(config(cluster, **changes), tmp_path / "out")
    assert lost_episodes(tmp_path / "out") == [] and not Spool(tmp_path / "out").paths()
