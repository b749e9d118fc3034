"""Reads what an evaluation or a training run left on disk, for the report."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from mira_jax.errors import UserError
from mira_jax.trajectories import side_tables
from mira_jax.trajectories.records import Policy, Seconds, Status, Task, TokenCounts, Trajectory
from mira_jax.trajectories.shards import ShardReader, Spool
from mira_jax.trajectories.side_tables import SideTable
from rollouts.analysis.failures import Failure, classify

EPISODES = "episodes"
"""The folder of what was collected."""
LABELLED = "labelled"
"""The folder of the same episodes, judged."""
LOST = "infra_errors"
"""The folder beside the episodes for those lost to infrastructure errors. Collecting again tries them again."""
SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True)
class Episode:
    """What counts and tables need of one episode; its pages stay on disk."""

    record: int
    """Its place in the evaluation's shards."""
    task: str
    """Task and seed, the same for every attempt and method."""
    key: str
    """Task, seed and attempt: what pairs are made by."""
    spec: Task
    attempt: int
    policy: Policy
    template: str
    status: Status
    judged: bool
    """Has an outcome; never true of an infra_error."""
    success: bool
    score: float
    """0 without an outcome."""
    failure: Failure | None
    steps: int
    tokens: TokenCounts
    """Of all steps, as `seconds`."""
    seconds: Seconds
    progress: tuple[float, ...]
    """Share of milestones done after each step, in [0, 1]; empty where unlabelled."""
    error: str
    """For infra_error: what failed."""
    created: str

    @property
    def domain(self) -> str:
        """The task's sites: one site's name, or several names in the order of the alphabet with + between."""
        return "+".join(sorted(set(self.spec.sites))) or self.spec.suite


class Evaluation:
    """The episodes of one method."""

    def __init__(self, name: str, folder: str | Path, scores: Sequence[str | Path] = ()):
        """Reads every episode once.

        Args:
            folder: of an evaluation, as `mira evaluate` leaves it, or of labelled shards.
            scores: side tables.

        Raises:
            UserError: a missing or empty folder, a damaged shard, a side table that is damaged or of other shards,
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
        """Given up after infrastructure errors; not among the shards."""
        if not self.judged:
            raise UserError(f"{shards}: no episode here has an outcome; label them first (`mira label`)")

    @property
    def judged(self) -> list[Episode]:
        return [episode for episode in self.episodes if episode.judged]

    def load(self, episode: Episode) -> Trajectory:
        return self._reader[episode.record]

    def scores(self, column: str, trajectory: Trajectory) -> list[float] | None:
        """`column` at each step, from the first side table that has it; None where no table has."""
        for table in self._scores:
            if column in table.columns:
                return [table.lookup(column, trajectory.id, step.index) for step in trajectory.steps]
        return None


def read_episodes(trajectories: Sequence[Trajectory], source: Path) -> list[Episode]:
    """Reads each once, and keeps none of its pages.

    Raises:
        UserError: two episodes of one task and attempt in `source`, or a score or time that is not finite.
    """
    episodes: dict[str, Episode] = {}
    for record, trajectory in enumerate(trajectories):
        episode = _episode(record, trajectory)
        if episode.key in episodes:
            raise UserError(f"{source}: two episodes of {episode.key}; an evaluation has one policy, and one episode per task and attempt")
        if not all(map(math.isfinite, (episode.score, episode.seconds.browser, episode.seconds.policy))):
            raise UserError(f"{source}: the score or the seconds of {episode.key} are not finite; label again (`mira label`)")
        episodes[episode.key] = episode
    return list(episodes.values())


@dataclasses.dataclass(frozen=True)
class Run:
    """The metrics of one training run."""

    name: str
    curves: dict[str, list[tuple[float, float]]]
    """Metric to (step, value), by step; values are finite."""


def read_run(name: str, folder: str | Path) -> Run:
    """Reads `folder/metrics.jsonl`. Where a resumed run wrote a step twice, the later line counts.

    Raises:
        UserError: no such file, or a line before the last that is not JSON (the last may be cut short).
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
    return Run(name, {metric: sorted(by_step.items()) for metric, by_step in points.items()})


def read_stages(path: str | Path) -> dict[str, float]:
    """Minutes per stage, in order.

    `path`: a JSON object of stage to minutes, itself or under `minutes`; or the folder of stage records that
    `mira phases` keeps, of which the complete ones are read.

    Raises:
        UserError: a missing file, or one that is neither.
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
    """In the order in which the stages were done."""
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
        tokens=TokenCounts(prompt=sum(step.tokens.prompt for step in steps), response=sum(step.tokens.response for step in steps)),
        seconds=Seconds(
            browser=math.fsum(step.seconds.browser for step in steps),
            policy=math.fsum(step.seconds.policy for step in steps),
        ),
        progress=progress if len(progress) == len(steps) else (),
        error=trajectory.error,
        created=trajectory.created,
    )
