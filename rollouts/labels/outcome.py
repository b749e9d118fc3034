"""Labels by rule: the outcome of an episode and its milestones after every step, from what was recorded. Needs no site."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mira_jax import config
from mira_jax.errors import UserError
from mira_jax.files import PART, publish, sole_writer, write_atomically
from mira_jax.progress import track
from mira_jax.trajectories.records import Status, Trajectory
from mira_jax.trajectories.shards import RECORDS, ShardReader, write_shard
from rollouts.suites import Suite

PER_SHARD = 1024
SETTINGS = "label.yaml"
"""How the episodes of a folder were labelled."""


def label(trajectory: Trajectory, suite: Suite) -> Trajectory:
    """The trajectory with its outcome, subgoals and milestones. One lost to an infrastructure error keeps none of them."""
    if trajectory.status is Status.INFRA_ERROR:
        return msgspec.structs.replace(trajectory, outcome=None)
    subgoals, reached = suite.milestones(trajectory)
    if len(reached) != len(trajectory.steps) or any(len(row) != len(subgoals) for row in reached):
        raise ValueError(f"{trajectory.task.id}: the suite's milestones do not match the episode's steps and subgoals")
    steps = tuple(msgspec.structs.replace(step, milestones=row) for step, row in zip(trajectory.steps, reached, strict=True))
    return msgspec.structs.replace(trajectory, subgoals=subgoals, steps=steps, outcome=suite.judge(trajectory))


def label_folder(folder: Path, out: Path, suite: Suite, overwrite: bool = False, settings: Mapping[str, Any] | None = None) -> bool:
    """Labels all packed episodes of `folder` into shards in `out`, which appears whole or not at all.

    Args:
        settings: the name and the options that `suite` was made of, written with the labels. Default: its name.

    Returns:
        False if `out` holds the labels of these very episodes by these settings already, and is left as it is.

    Raises:
        UserError: a damaged or empty `folder`, episodes of another suite, other files in `out` without `overwrite`, or
            another process that labels into `out`.
    """
    reader, settings = ShardReader(folder), settings or {"name": suite.name}
    if out.resolve() == folder.resolve():
        raise UserError(f"{out}: labels go to a folder of their own, not back to the episodes they are made from")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: not a folder; choose another out")
    if out.exists() and any(out.iterdir()) and not overwrite:
        difference = _difference(out, reader, settings)
        if not difference:
            return False
        raise UserError(f"{out}: {difference}; choose another out, or set overwrite=true to replace it")
    if out.exists() and (other := _other_file(out)):
        raise UserError(f"{out}: holds {other}, which is none of the files that labels are kept in; choose another out")
    # Always the same name: what a process that was killed left there is replaced by the next one, under the lock.
    temporary = out.with_name(f".{out.name}{PART}")
    with sole_writer(temporary, f"labels of {out}"):
        _empty(temporary)
        try:
            with contextlib.closing(_labelled(reader, suite)) as labelled:
                for shard, start in enumerate(range(0, len(reader), PER_SHARD)):
                    count = min(PER_SHARD, len(reader) - start)
                    write_shard(temporary / f"episodes-{shard:05d}.array_record", (next(labelled) for _ in range(count)))
            write_atomically(temporary / SETTINGS, yaml.safe_dump(dict(settings)).encode())
            if out.exists():
                shutil.rmtree(out)
            publish(temporary, out)
        finally:
            _empty(temporary)
    return True


def _other_file(out: Path) -> str:
    """The first entry that replacing the labels in `out` would destroy and that labels do not have; "" if there is none."""
    shards = {path.stem for path in out.glob("*" + RECORDS)}
    known = {SETTINGS, *(stem + end for stem in shards for end in (RECORDS, ".json"))}
    return next((entry.name for entry in sorted(out.iterdir()) if entry.name not in known), "")


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _labelled(reader: ShardReader, suite: Suite) -> Iterator[Trajectory]:
    for trajectory in track(map(reader.__getitem__, range(len(reader))), "labels", "episodes", len(reader)):
        if trajectory.task.suite != suite.name:
            raise UserError(
                f"{trajectory.task.id}: an episode of the suite {trajectory.task.suite!r}, not of {suite.name!r}; set suite.name"
            )
        yield label(trajectory, suite)


def is_labelled(folder: Path, out: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `out` holds the labels of just the episodes of `folder`, by these settings. Raises UserError for a damaged `folder`."""
    return out.is_dir() and not _difference(out, ShardReader(folder), settings)


def _difference(out: Path, reader: ShardReader, settings: Mapping[str, Any]) -> str:
    """How what is in `out` differs from the labels of `reader`'s episodes; "" if it does not."""
    try:
        labelled = ShardReader(out)
    except UserError:
        return "holds something else already"
    # Episodes that were collected again have the same keys; their ids are new.
    if labelled.keys() != reader.keys() or labelled.ids() != reader.ids():
        return "holds something else already, the labels of other episodes"
    path = out / SETTINGS
    if not path.exists():
        return "does not say how it was labelled, as by older versions"
    if not config.same(yaml.safe_load(path.read_text(encoding="utf-8")), dict(settings)):
        return "was labelled with other settings of the suite"
    return ""
