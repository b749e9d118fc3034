"""A process that is killed or whose disk is full while it collects: no episode is lost or doubled, and nothing is left behind."""

import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mira_jax.errors import UserError
from mira_jax.files import sole_writer
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader, Spool
from rollouts import collect as collect_command
from rollouts import evaluate
from rollouts.engine.pool import LOST, collect
from tests.rollouts.sites import CountingSuite, config, descendants, start_worker
from tests.rollouts.waiting import PATIENCE, command_line, until


@pytest.fixture
def start():
    """Starts workers, none of which outlives the test."""
    workers = []
    yield lambda *arguments, **environment: workers.append(start_worker(*arguments, **environment)) or workers[-1]
    for worker in workers:
        worker.kill()
        worker.wait()
        worker.stderr.close()


def spooled(folder):
    return len(list(folder.glob("spool/*.episode")))


def marked(mark):
    """Names of the processes that were started with this in their environment or command line."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{process}/environ").read_bytes() + command_line(process):
                found.append(Path(f"/proc/{process}/comm").read_text().strip())
        except OSError:
            continue
    return found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kills", "episodes"), [(4, 40), pytest.param(30, 300, marks=pytest.mark.slow)])
def test_a_worker_killed_at_any_moment_loses_and_doubles_nothing_and_leaves_nothing_behind(start, tmp_path, kills, episodes):
    """Half of the kills come while it starts, half while it collects."""
    scratch, out, draw = tmp_path / "scratch", tmp_path / "out", random.Random()
    scratch.mkdir()
    mark = str(scratch).encode()
    seen = set()
    for kill in range(kills):
        # The first life is spent on a page that loops for ever.
        worker = start(out if kill else tmp_path / "looping", episodes, "" if kill else LOOP, TMPDIR=str(scratch))
        if not kill:
            until((tmp_path / "looping" / collect_command.CONFIG).exists, "never began")
        elif kill % 2:
            before = spooled(out)
            until(lambda before=before, worker=worker: spooled(out) > before or worker.poll() is not None, "no episode")
        time.sleep(draw.uniform(0, 0.5 if kill % 2 else 1.5))
        seen |= set(marked(mark))
        worker.kill()
        worker.wait()
        assert not spooled(out) or (out / collect_command.CONFIG).exists()
    assert any(name.startswith("chrom") for name in seen), "browsers would have been seen"
    worker = start(out, episodes, TMPDIR=str(scratch))
    _, errors = worker.communicate()
    assert worker.returncode == 0, errors
    until(lambda: not marked(mark), f"left running: {marked(mark)}")
    collected = list(ShardReader(out))
    assert sorted(episode.task.id for episode in collected) == sorted(f"press.train.0.{index}" for index in range(episodes))
    assert {episode.status for episode in collected} == {Status.FINISHED}
    assert all(len(episode.steps) == int(episode.task.intent.split()[1]) + 1 for episode in collected)
    assert [path for path in out.rglob("*") if path.is_file() and path.suffix not in (".yaml", ".json", ".array_record")] == []
    assert list(out.rglob(".*")) == [] and list(scratch.iterdir()) == []


LOOP = "<a href=/press?n=1>press</a><script>setTimeout(() => { for (;;); }, 100)</script>"


def test_what_a_killed_writer_left_half_written_is_swept_away(use, tmp_path):
    use(CountingSuite())
    collect(config(), tmp_path)
    left = [
        tmp_path / ".episodes-00001.array_record.1.part",
        tmp_path / "spool/.a.episode.1.part",
        tmp_path / LOST / "spool/.b.episode.1.part",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert collect(config(), tmp_path).skipped == 4
    assert not any(path.exists() for path in left)


def test_an_evaluation_that_was_killed_before_its_first_episode_can_be_begun_again(tmp_path):
    (tmp_path / evaluate.EPISODES).mkdir()
    (tmp_path / f".{evaluate.CONFIG}.1.part").write_text("episodes: 1")
    arguments = ["--out", str(tmp_path), "--dry-run", "--set", "policy.kind=expert"]
    assert evaluate.COMMAND.run(arguments) == 0


def test_two_processes_never_collect_into_one_folder(use, tmp_path):
    suite = use(CountingSuite())
    with sole_writer(tmp_path, "episodes"), pytest.raises(UserError, match="another process is writing episodes here"):
        collect(config(), tmp_path)
    assert suite.opened == 0
    with sole_writer(tmp_path / "a" / "b", "episodes"):
        pass
    assert not (tmp_path / "a").exists()


def test_sigterm_ends_cleanly_and_keeps_what_is_done(start, tmp_path):
    worker = start(tmp_path, 500)
    until(lambda: spooled(tmp_path) or worker.poll() is not None, "no episode")
    below = [process for process, _ in descendants(worker.pid)]
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 130 and "run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert below and len(Spool(tmp_path).keys()) >= 1
    until(lambda: not any(os.path.exists(f"/proc/{process}") for process in below), "left running")


# The disk.


@pytest.fixture
def resize(tmp_path):
    """Makes the disk that the folder is on so large, in bytes; None where no disk may be mounted."""
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        yield None
    else:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", tmp_path], check=True)
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk_loses_no_episode_while_collecting_nor_while_packing(start, resize, tmp_path):
    if not resize:
        pytest.skip("no disk may be mounted here")
    out, pages = tmp_path / "out", os.sysconf("SC_PAGE_SIZE")
    resize(12 * pages)
    worker = start(out, 20)
    _refused(worker)
    there = len(list(Spool(out).trajectories()))
    assert 1 <= there < 20
    resize(24 * pages)  # Room for every episode, and for no shard of them beside.
    worker = start(out, 20)
    _refused(worker)
    assert len(list(Spool(out).trajectories())) == 20 and not list(out.glob("*.array_record"))
    resize(2**22)
    _goes_on(start, out, 20)


def test_a_disk_that_fills_up_ends_the_run_and_the_next_goes_on(start, resize, tmp_path):
    """The limit on file size, set when the run is under way, makes every write fail as a full disk does."""
    if resize:
        pytest.skip("a small disk is filled instead")
    worker = start(tmp_path, 30)
    until(lambda: spooled(tmp_path) or worker.poll() is not None, "no episode")
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, 0))
    _refused(worker)
    assert 1 <= len(list(Spool(tmp_path).trajectories())) < 30
    _goes_on(start, tmp_path, 30)


def _refused(worker):
    _, errors = worker.communicate(timeout=2 * PATIENCE)
    assert worker.returncode == 2, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ") and "free some disk space and run the same command again" in last and "Traceback" not in errors


def _goes_on(start, out, episodes):
    assert list(out.rglob(".*")) == []
    worker = start(out, episodes)
    _, errors = worker.communicate(timeout=2 * PATIENCE)
    assert worker.returncode == 0, errors
    assert sorted(episode.task.id for episode in ShardReader(out)) == sorted(f"press.train.0.{index}" for index in range(episodes))
    assert Spool(out).paths() == [] and list(out.rglob(".*")) == []
