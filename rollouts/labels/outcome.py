"""Labels by rule: the outcome of an episode and its milestones after every step, from what was recorded. Needs no site."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from tqdm import tqdm

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status, Trajectory
from mira_jax.trajectories.shards import ShardReader, write_shard
from rollouts.suites import Suite

PER_SHARD = 1024


def label(trajectory: Trajectory, suite: Suite) -> Trajectory:
    """The trajectory with its outcome, subgoals and milestones. One lost to an infrastructure error keeps none of them."""
    if trajectory.status is Status.INFRA_ERROR:
        return msgspec.structs.replace(trajectory, outcome=None)
    subgoals, reached = suite.milestones(trajectory)
    if len(reached) != len(trajectory.steps) or any(len(row) != len(subgoals) for row in reached):
        raise ValueError(f"{trajectory.task.id}: the suite's milestones do not match the episode's steps and subgoals")
    steps = tuple(msgspec.structs.replace(step, milestones=row) for step, row in zip(trajectory.steps, reached, strict=True))
    return msgspec.structs.replace(trajectory, subgoals=subgoals, steps=steps, outcome=suite.judge(trajectory))


def label_folder(folder: Path, out: Path, suite: Suite, overwrite: bool = False) -> bool:
    """Labels all packed episodes of `folder` into shards in `out`, which appears whole or not at all.

    Returns False if `out` holds just these episodes already, and leaves it.

    Raises:
        UserError: a damaged or empty `folder`, episodes of another suite, or other files in `out` without `overwrite`.
    """
    reader = ShardReader(folder)
    if out.resolve() == folder.resolve():
        raise UserError(f"{out}: labels go to a folder of their own, not back to the episodes they are made from")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: not a folder; choose another out")
    if out.exists() and any(out.iterdir()) and not overwrite:
        if _holds(out, reader):
            return False
        raise UserError(f"{out}: this folder holds something else already; choose another, or set overwrite=true")
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        with contextlib.closing(_labelled(reader, suite)) as labelled:
            for shard, start in enumerate(range(0, len(reader), PER_SHARD)):
                count = min(PER_SHARD, len(reader) - start)
                write_shard(temporary / f"episodes-{shard:05d}.array_record", (next(labelled) for _ in range(count)))
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _labelled(reader: ShardReader, suite: Suite) -> Iterator[Trajectory]:
    records: Iterable[int] = range(len(reader))
    for record in tqdm(records, desc="labels", unit="ep", mininterval=1.0, file=sys.stderr, dynamic_ncols=True):
        trajectory = reader[record]
        if trajectory.task.suite != suite.name:
            raise UserError(
                f"{trajectory.task.id}: an episode of the suite {trajectory.task.suite!r}, not of {suite.name!r}; set suite.name"
            )
        yield label(trajectory, suite)


def is_labelled(folder: Path, out: Path) -> bool:
    """Whether `out` holds the labelled form of just the episodes of `folder`. Raises UserError for a damaged `folder`."""
    return out.is_dir() and _holds(out, ShardReader(folder))


def _holds(out: Path, reader: ShardReader) -> bool:
    try:
        labelled = ShardReader(out)
    except UserError:
        return False
    return labelled.keys() == reader.keys()
