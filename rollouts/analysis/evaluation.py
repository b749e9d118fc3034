"""Reads the files of an evaluation or a training run, for the report."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mira_jax.errors import UserError
from mira_jax.trajectories import diagnostics, side_tables
from mira_jax.trajectories.actions import EXIT
from mira_jax.trajectories.diagnostics import Diagnostics
from mira_jax.trajectories.records import Policy, Seconds, Status, Task, TokenCounts, Trajectory
from mira_jax.trajectories.shards import ShardReader, Spool
from mira_jax.trajectories.side_tables import SideTable
from rollouts.analysis.failures import Failure, classify

EPISODES = "episodes"
"""Subfolder of the collected episodes."""
LABELLED = "labelled"
"""Subfolder of the same episodes, labelled."""
LOST = "infra_errors"
"""Subfolder of episodes lost to infrastructure errors, next to the collected ones. They are retried by the next collection."""
SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True)
class Episode:
    """The fields of one episode that counts and tables need. Its pages are not kept in memory."""

    record: int
    """Record number in the evaluation's shards."""
    task: str
    """Task and seed: equal for all attempts and methods."""
    key: str
    """Task, seed and attempt: the key by which episodes are paired."""
    spec: Task
    attempt: int
    policy: Policy
    template: str
    status: Status
    judged: bool
    """Whether the episode has an outcome. Always false for infra_error."""
    success: bool
    score: float
    """0 if there is no outcome."""
    failure: Failure | None
    steps: int
    tokens: TokenCounts
    """Sum over all steps, as are the counts below and `seconds`."""
    planner_tokens: TokenCounts
    unanswered: int
    """Number of steps before which the planner gave no valid answer."""
    replans: int
    """Number of times that the plan was made again."""
    held_exits: int
    """Number of exits that were held back."""
    seconds: Seconds
    progress: tuple[float, ...]
    """Fraction of milestones reached after each step, in [0, 1]. Empty if the episode is not labelled."""
    error: str
    """For infra_error: the reason."""
    created: str

    @property
    def domain(self) -> str:
        """The task's sites: one name, or several names in alphabetical order joined by +."""
        return "+".join(sorted(set(self.spec.sites))) or self.spec.suite


class Evaluation:
    """The episodes of one method."""

    def __init__(self, name: str, folder: str | Path, scores: Sequence[str | Path] = ()):
        """Reads every episode once.

        Args:
            folder: a folder written by `mira evaluate`, or a folder of labelled shards.
            scores: side tables.

        Raises:
            UserError: a missing or empty folder, a damaged shard, a side table that is damaged or belongs to other shards,
                two episodes of one task and attempt, or no episode with an outcome.
        """
        self.name, self.folder = name, Path(folder)
        shards = self.folder / LABELLED if (self.folder / LABELLED).is_dir() else self.folder
        self._reader = ShardReader(shards)
        self._scores = [SideTable.read(path) for path in scores]
        side_tables.check(self._scores, self._reader.sha256)
        self.episodes = read_episodes(self._reader, shards)
        self.by_key = {episode.key: episode for episode in self.episodes}
        lost = self.folder / EPISODES / LOST
        self.lost = read_episodes(list(Spool(lost).trajectories()), lost) if lost.is_dir() else []
        """Episodes given up after infrastructure errors. They are not in the shards."""
        if not self.judged:
            raise UserError(f"{shards}: no episode here has an outcome; label them first (`mira label`)")

    @property
    def judged(self) -> list[Episode]:
        return [episode for episode in self.episodes if episode.judged]

    def load(self, episode: Episode) -> Trajectory:
        return self._reader[episode.record]

    def scores(self, column: str, trajectory: Trajectory) -> list[float] | None:
        """Returns `column` at each step, from the first side table that contains the episode. None if no table does."""
        for table in self._scores:
            if column in table.columns:
                return [table.lookup(column, trajectory.id, step.index) for step in trajectory.steps]
        return None


def read_episodes(trajectories: Sequence[Trajectory], source: Path) -> list[Episode]:
    """Reads each trajectory once, without keeping its pages.

    Raises:
        UserError: two episodes of one task and attempt in `source`, or a score or time that is not finite.
    """
    episodes: dict[str, Episode] = {}
    for record, trajectory in enumerate(trajectories):
        episode = _episode(record, trajectory)
        if episode.key in episodes:
            raise UserError(f"{source}: two episodes of {episode.key}; an evaluation has one policy, and one episode per task and attempt")
        if not all(map(math.isfinite, (episode.score, *msgspec.structs.astuple(episode.seconds)))):
            raise UserError(f"{source}: the score or the seconds of {episode.key} are not finite; label again (`mira label`)")
        episodes[episode.key] = episode
    return list(episodes.values())


@dataclasses.dataclass(frozen=True)
class Run:
    """The metrics of one training run, and its diagnostics if `mira diagnose` measured them."""

    name: str
    curves: dict[str, list[tuple[float, float]]]
    """Metric to (step, value) pairs, ordered by step. Values are finite."""
    diagnostics: Diagnostics | None = None


def read_run(name: str, folder: str | Path) -> Run:
    """Reads `folder/metrics.jsonl` and `folder/diagnostics.json`. If a resumed run wrote a step twice, the later line is used.

    Raises:
        UserError: the file is missing, or a line other than the last is not JSON (the last may be truncated).
    """
    path = Path(folder) / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot read the metrics of run {name}: {error.strerror}") from None
    points: dict[str, dict[float, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not JSON") from None
        if not isinstance(row, dict) or not _is_number(row.get("step")):
            continue
        for metric, value in row.items():
            if metric not in ("step", "time") and _is_number(value):
                points.setdefault(metric, {})[row["step"]] = float(value)
    curves = {metric: sorted(by_step.items()) for metric, by_step in points.items()}
    return Run(name, curves, diagnostics.read(folder))


def read_stages(path: str | Path) -> dict[str, float]:
    """Minutes per stage, in order.

    Args:
        path: a JSON file, which maps stage to minutes at the top level or under `minutes`, or the folder of stage records that
            `mira phases` writes. Incomplete stage records are skipped.

    Raises:
        UserError: the path does not exist, or is neither.
    """
    if Path(path).is_dir():
        return _read_stage_records(Path(path))
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the minutes per stage: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    minutes = tree.get("minutes", tree) if isinstance(tree, dict) else None
    if not isinstance(minutes, dict) or not all(map(_is_number, minutes.values())):
        raise UserError(f"{path}: expected an object of stage to minutes, itself or under the key minutes")
    return {str(stage): float(value) for stage, value in minutes.items()}


def _read_stage_records(folder: Path) -> dict[str, float]:
    """Reads stage records, ordered by the time at which the stages finished."""
    minutes = {}
    for file in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file}: not JSON: {error}") from None
        if isinstance(record, dict) and record.get("complete") is True and _is_number(record.get("seconds")):
            minutes[file.stem] = record["seconds"] / 60
    return minutes


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _total(counts: Sequence[TokenCounts]) -> TokenCounts:
    return TokenCounts(prompt=sum(one.prompt for one in counts), response=sum(one.response for one in counts))


def _episode(record: int, trajectory: Trajectory) -> Episode:
    task, steps, outcome = trajectory.task, trajectory.steps, trajectory.outcome
    progress = tuple(sum(step.milestones) / len(step.milestones) for step in steps if step.milestones)
    judged = outcome is not None and trajectory.status is not Status.INFRA_ERROR
    return Episode(
        record=record,
        task=f"{task.id}|{task.seed}",
        key=f"{task.id}|{task.seed}|{trajectory.attempt}",
        spec=task,
        attempt=trajectory.attempt,
        policy=trajectory.policy,
        template=task.template,
        status=trajectory.status,
        judged=judged,
        success=judged and trajectory.success,
        score=outcome.score if outcome and judged else 0.0,
        failure=classify(trajectory),
        steps=len(steps),
        tokens=_total([step.tokens for step in steps]),
        planner_tokens=_total([step.planner_tokens for step in steps]),
        unanswered=sum(step.plan is not None and step.plan.unanswered for step in steps),
        replans=sum(one != other for one, other in itertools.pairwise(step.plan.subgoals for step in steps if step.plan) if one),
        held_exits=sum(step.action is not None and step.action.name == EXIT and step.error is not None for step in steps),
        seconds=Seconds(
            browser=math.fsum(step.seconds.browser for step in steps),
            policy=math.fsum(step.seconds.policy for step in steps),
            planner=math.fsum(step.seconds.planner for step in steps),
        ),
        progress=progress if len(progress) == len(steps) else (),
        error=trajectory.error,
        created=trajectory.created,
    )
