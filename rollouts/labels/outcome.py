"""Labels recorded episodes: the outcome, by a judge, and by labellers the milestones after every step and the grade of the plan.

It needs no site.
"""

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mira_jax import config
from mira_jax.errors import UserError
from mira_jax.files import PART, publish, read_json, sole_writer, to_json, write_atomically
from mira_jax.progress import track
from mira_jax.trajectories.records import Status, Trajectory
from mira_jax.trajectories.shards import RECORDS, ShardReader, write_shard
from mira_jax.trajectories.summary import RoleUsage
from rollouts.labels.judge import OutcomeJudge, Rules
from rollouts.labels.labeller import OpenLabeller
from rollouts.labels.milestones import KEY as MILESTONES
from rollouts.labels.milestones import by_suite
from rollouts.suites import Suite

PER_SHARD = 1024
AT_ONCE = 64
"""Number of episodes that are given to the judge at once."""
SETTINGS = "label.yaml"
"""File with the settings with which a folder was labelled."""
USAGE = "usage.json"
"""File with what the models that were asked for the labels used, by the path of their config. Absent if none was asked."""
LEFT_OUT = "left_out.json"
"""File with the ids of the episodes that were left out, and why. Absent if none was."""
LABEL_AGAIN = "remove the folder and label again (`mira label`)"


def label(trajectory: Trajectory, suite: Suite) -> Trajectory:
    """Returns the trajectory with its outcome, subgoals and milestones, by the rules of the suite. An episode lost to an infrastructure
    error gets none of them. Must not be called from a running event loop."""
    (outcome,) = Rules(suite).outcomes([trajectory])
    return msgspec.structs.replace(asyncio.run(_milestones(trajectory, suite)), outcome=outcome)


async def _milestones(trajectory: Trajectory, suite: Suite) -> Trajectory:
    return await by_suite(suite)(trajectory)


def label_folder(
    folder: Path,
    out: Path,
    suite: Suite,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    judge: OutcomeJudge | None = None,
    milestones: OpenLabeller | None = None,
    lacks: Callable[[Trajectory], str] | None = None,
    plans: OpenLabeller | None = None,
) -> bool:
    """Labels all packed episodes of `folder` into shards in `out`. The output appears atomically.

    Args:
        settings: name and options of `suite`, and those of `judge`, `milestones` and `plans`, written with the labels. Default: the name
            of the suite.
        judge: what decides the outcomes. Default: the rules of the suite.
        milestones: what decides the milestones. Default: the rules of the suite.
        lacks: what a labelled episode lacks, for which it is left out; "" if it is kept. Default: all are kept.
        plans: what grades the plans. Default: they get no grade.

    What models used for the labels is written with them.

    Returns:
        False if `out` already contains the labels of exactly these episodes with these settings. It is then left unchanged.

    Raises:
        UserError: a damaged or empty `folder`, episodes of another suite, other files in `out` without `overwrite`,
            another process that labels into `out`, or no episode that would be kept.
    """
    reader, settings = ShardReader(folder), settings or {"name": suite.name}
    if out.resolve() == folder.resolve():
        raise UserError(f"{out}: the folder of the episodes themselves; choose another out for the labels")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: not a folder; choose another out")
    if out.exists() and any(out.iterdir()) and not overwrite:
        difference = _difference(out, reader, settings)
        if not difference:
            return False
        raise UserError(f"{out}: {difference}; choose another out, or set overwrite=true to replace it")
    if out.exists() and (other := _other_file(out)):
        raise UserError(f"{out}: holds {other}, which is not a file of labels; choose another out")
    judge = judge or Rules(suite)
    # A fixed name, used under the lock: the next run replaces the remains of one that was killed.
    temporary = out.with_name(f".{out.name}{PART}")
    with sole_writer(temporary, f"labels of {out}"):
        _empty(temporary)
        try:
            with contextlib.ExitStack() as stack:
                milestones = milestones or stack.enter_context(contextlib.closing(OpenLabeller(by_suite(suite), MILESTONES)))
                labelled = stack.enter_context(contextlib.closing(_labelled(reader, suite, judge, milestones, plans)))
                left_out = _write(labelled, temporary, lacks or (lambda _: ""))
            if len(left_out) == len(reader):
                raise UserError(f"{folder}: every episode would be left out; the first because {next(iter(left_out.values()))}")
            if left_out:
                write_atomically(temporary / LEFT_OUT, to_json({"left_out": left_out}, indent=1).encode())
            write_atomically(temporary / SETTINGS, yaml.safe_dump(dict(settings)).encode())
            if usage := {key: one.record() for key, one in {**judge.usage, **milestones.usage, **(plans.usage if plans else {})}.items()}:
                write_atomically(temporary / USAGE, to_json(msgspec.to_builtins(usage), indent=1).encode())
            if out.exists():
                shutil.rmtree(out)
            publish(temporary, out)
        finally:
            _empty(temporary)
    return True


def missing_label(trajectory: Trajectory, milestones: bool, plans: bool = False) -> str:
    """What a labelled episode lacks to be trained on: its outcome, with `milestones` its milestones, or with `plans` the grade of its
    plan. "" if nothing. An episode lost to an infrastructure error lacks nothing, since it is never trained on."""
    if trajectory.status is Status.INFRA_ERROR:
        return ""
    if trajectory.outcome is None:
        return "it has no outcome"
    if milestones and not trajectory.subgoals:
        return "it has no milestones"
    return "its plan has no grade" if plans and trajectory.plan_grade is None else ""


def _write(labelled: Iterable[Trajectory], out: Path, lacks: Callable[[Trajectory], str]) -> dict[str, str]:
    """Writes the episodes that lack nothing. Returns the ids of the others, and what they lack."""
    left_out: dict[str, str] = {}

    def kept() -> Iterator[Trajectory]:
        for trajectory in labelled:
            if reason := lacks(trajectory):
                left_out[trajectory.id] = reason
            else:
                yield trajectory

    episodes, shard = kept(), 0
    while (first := next(episodes, None)) is not None:
        part = itertools.chain([first], itertools.islice(episodes, PER_SHARD - 1))
        write_shard(out / f"episodes-{shard:05d}.array_record", part)
        shard += 1
    return left_out


def read_left_out(labelled: Path) -> dict[str, str]:
    """The ids of the episodes that were left out of this folder, and why. Raises UserError if its file is damaged."""
    path = labelled / LEFT_OUT
    return dict(read_json(path, LABEL_AGAIN).get("left_out", {})) if path.exists() else {}


def _other_file(out: Path) -> str:
    """Returns the first entry of `out` that is no part of a labelled folder and that replacing it would destroy. "" if there is none."""
    shards = {path.stem for path in out.glob("*" + RECORDS)}
    known = {SETTINGS, USAGE, LEFT_OUT, *(stem + end for stem in shards for end in (RECORDS, ".json"))}
    return next((entry.name for entry in sorted(out.iterdir()) if entry.name not in known), "")


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _labelled(
    reader: ShardReader, suite: Suite, judge: OutcomeJudge, milestones: OpenLabeller, plans: OpenLabeller | None
) -> Generator[Trajectory, None, None]:
    yield from track(_batches(reader, suite, judge, milestones, plans), "labels", "episodes", len(reader))


def _batches(
    reader: ShardReader, suite: Suite, judge: OutcomeJudge, milestones: OpenLabeller, plans: OpenLabeller | None
) -> Iterator[Trajectory]:
    for start in range(0, len(reader), AT_ONCE):
        trajectories = [reader[index] for index in range(start, min(start + AT_ONCE, len(reader)))]
        for task in (trajectory.task for trajectory in trajectories):
            if task.suite != suite.name:
                raise UserError(f"{task.id}: an episode of the suite {task.suite!r}, not of {suite.name!r}; set suite.name")
        outcomes = judge.outcomes(trajectories)
        # A grade of earlier labels would not be by the recorded settings.
        ungraded = [msgspec.structs.replace(trajectory, plan_grade=None) for trajectory in milestones.label(trajectories)]
        for trajectory, outcome in zip(plans.label(ungraded) if plans else ungraded, outcomes, strict=True):
            yield msgspec.structs.replace(trajectory, outcome=outcome)


def read_usage(labelled: Path) -> dict[str, RoleUsage]:
    """What was used for the labels in this folder. Raises UserError if its file is damaged."""
    path = labelled / USAGE
    if not path.exists():
        return {}
    try:
        return msgspec.convert(read_json(path, LABEL_AGAIN), dict[str, RoleUsage])
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}; {LABEL_AGAIN}") from None


def is_labelled(folder: Path, out: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `out` contains the labels of exactly `folder`'s episodes, with these settings. Raises UserError if `folder` is damaged."""
    return out.is_dir() and not _difference(out, ShardReader(folder), settings)


def _difference(out: Path, reader: ShardReader, settings: Mapping[str, Any]) -> str:
    """Describes how the contents of `out` differ from the labels of `reader`'s episodes. "" if they do not."""
    try:
        labelled = ShardReader(out)
    except UserError:
        return "holds something else already"
    # Episodes that were collected again have the same keys but new ids.
    left_out = read_left_out(out)
    wanted = [(key, id_) for key, id_ in zip(reader.keys(), reader.ids(), strict=True) if id_ not in left_out]
    if list(zip(labelled.keys(), labelled.ids(), strict=True)) != wanted or len(wanted) + len(left_out) != len(reader):
        return "contains the labels of other episodes"
    path = out / SETTINGS
    if not path.exists():
        return "does not record the settings of its labels (it was written by an older version)"
    if not config.same(yaml.safe_load(path.read_text(encoding="utf-8")), dict(settings)):
        return "was labelled with other settings of the suite, the judge or the milestones, or of the plans"
    return ""
