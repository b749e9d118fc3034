"""Training tasks: a file of instructions on WebArena's sites, such as WebRL's (docs/webarena.md)."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mira_jax.trajectories.records import Task
from rollouts.suites import task_files
from rollouts.suites.evaluations import CONTAINED, check_evaluation
from rollouts.suites.tasks.items import Milestone, check_milestones
from rollouts.suites.webarena.tasks import HORIZON, SITES, SUITE, check_target, placeholder, storage_state, to_task

KEY = "suite.options.training"
PREFIX = f"{SUITE}.instruction."
"""Beginning of the ids of these tasks, which no task of the benchmark has."""
log = logging.getLogger(__name__)


class Instruction(msgspec.Struct, frozen=True):
    """One line of the file. WebRL's has intent, sites and start_url."""

    intent: str
    sites: Annotated[list[str], Meta(min_length=1)]
    id: str | int | None = None
    """Default: derived from sites, start_url and intent, so that it does not depend on the order of the file."""
    start_url: str = ""
    """Default: the first page of the first site."""
    horizon: Annotated[int, Meta(ge=1, le=task_files.MAX_HORIZON)] = HORIZON
    """Maximum number of steps of an episode."""
    eval: dict[str, Any] | None = None
    """In WebArena's form. None: no rule decides the outcome."""
    milestones: list[Milestone] = []
    """As in the suite `tasks`, without `state`."""


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    task: Task
    item: Mapping[str, Any]
    """The task in WebArena's JSON form."""
    milestones: tuple[Milestone, ...]

    @property
    def id(self) -> str:
        return self.task.id


@dataclasses.dataclass(frozen=True)
class TrainingTasks:
    """The tasks of the file, and how many of its instructions were left out."""

    tasks: Mapping[str, TrainingTask]
    repeated: int
    """Instructions without an id that occur twice."""
    of_tests: int
    """Instructions with the text of a test task."""

    def describe(self) -> str:
        splits = [one.task.split for one in self.tasks.values()]
        without = sum(not one.item["eval"]["eval_types"] for one in self.tasks.values())
        return (
            f"{len(splits)} tasks ({splits.count('train')} train, {splits.count('validation')} validation), "
            f"{without} without an evaluator; left out: {self.of_tests} with the text of a test task, {self.repeated} that occur twice"
        )


def read_training(path: str, validation_share: float, test_intents: Collection[str]) -> TrainingTasks:
    """Reads the file, and draws its splits by a hash of each task's id.

    Args:
        validation_share: the share of the tasks in the split validation. The others are in train.
        test_intents: the instructions of the benchmark.

    Raises:
        UserError: there are no tasks, or some are malformed. Every task that is wrong is named.
    """
    tests = {_normal(intent) for intent in test_intents}
    known: set[str] = set()
    repeated = of_tests = 0

    def parse(tree: Any) -> TrainingTask | None:
        nonlocal repeated, of_tests
        one = _instruction(tree)
        if _normal(one.intent) in tests:
            of_tests += 1
            return None
        found = _task(one, validation_share)
        if one.id is None and found.id in known:
            repeated += 1
            return None
        known.add(found.id)
        return found

    found = TrainingTasks(task_files.read_tasks(path, KEY, parse), repeated, of_tests)
    if of_tests or repeated:
        log.warning("%s: %s", path, found.describe())
    return found


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _instruction(tree: Any) -> Instruction:
    """Raises ValueError."""
    one = task_files.convert(tree, Instruction)
    if one.id is not None:
        task_files.check_id(one.id)
    task_files.check_intent(one.intent)
    task_files.check_sites(one.sites, SITES, "one of WebArena's")
    addresses = {placeholder(site): "" for site in one.sites}
    if one.start_url:
        task_files.check_url("start_url", one.start_url, addresses)
    if one.eval is not None:
        check_evaluation(one.eval, functools.partial(check_target, addresses=addresses), notes=(CONTAINED,))
    check_milestones(one.milestones)
    for milestone in one.milestones:
        if milestone.done.state is not None:
            raise ValueError(f"the milestone {milestone.text!r}: WebArena's sites have no state to read; give url, text or element")
    return one


def _task(one: Instruction, validation_share: float) -> TrainingTask:
    start_url = one.start_url or placeholder(one.sites[0])
    name = str(one.id) if one.id is not None else _hash(*one.sites, start_url, _normal(one.intent)).hex()[:12]
    item = {
        "task_id": name,
        "sites": one.sites,
        "storage_state": storage_state(one.sites),
        "start_url": start_url,
        "intent": one.intent.strip(),
        "eval": one.eval or {"eval_types": []},
    }
    split = "validation" if int.from_bytes(_hash(name)[:8]) < validation_share * 2**64 else "train"
    return TrainingTask(to_task(PREFIX + name, item, split, one.horizon), item, tuple(one.milestones))


def _hash(*texts: str) -> bytes:
    return hashlib.sha256("\0".join(texts).encode()).digest()
