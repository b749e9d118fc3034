"""Questions of the suite, read from the user's files: one's own as JSON Lines, or a published benchmark's."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from mira_jax.errors import ConfigError
from mira_jax.trajectories.tasks import SPLITS, split_by_hash
from rollouts.suites import task_files
from rollouts.suites.web_seeking.published import TABLES, PublishedQuestion, read_gaia, read_table, short_hash

KEY = "suite.options.file"
OWN = "questions"
"""The value of `benchmark` for the user's own questions."""
Benchmark = Literal["questions", "browsecomp", "browsecomp_zh", "gaia", "xbench"]
MAX_ANSWER = 2_000


@dataclasses.dataclass(frozen=True)
class Question:
    id: str
    text: str
    answers: tuple[str, ...]
    """References. An answer that equals one of them is right."""
    template: str
    """Rates are reported by template: a topic, a level, or the name of the benchmark."""
    split: str
    canary: str = ""
    """The benchmark's canary, which marks texts that no model should be trained on."""

    @property
    def fingerprint(self) -> str:
        """A hash of the question and its references, by which a changed file is noticed."""
        return short_hash(self.text, *self.answers)


class OwnQuestion(msgspec.Struct, frozen=True):
    """One line of the user's own file."""

    question: str
    answer: str = ""
    answers: list[str] = []
    """In place of `answer`, if several are right."""
    id: str | int | None = None
    """Default: a hash of the question."""
    template: str = OWN
    split: Literal["train", "validation", "test"] | None = None
    """Default: by a hash of the id, 70 % train, 10 % validation, 20 % test."""


def read_questions(benchmark: Benchmark, path: str, training: bool) -> dict[str, Question]:
    """The questions by id.

    Args:
        training: whether a published benchmark is split by a hash of the ids. By default all of its questions are in the split test.

    Raises:
        UserError: no file is named, it cannot be read, or it has another format. Nothing of it is used then.
    """
    if not path:
        raise ConfigError(KEY, "not set; name the file of the questions (docs/seeking-real.md)")
    if benchmark == OWN:
        return task_files.read_tasks(path, KEY, _own)
    found = read_gaia(path, KEY) if benchmark == "gaia" else read_table(path, KEY, TABLES[benchmark])
    return {one.id: one for one in map(functools.partial(_published, benchmark=benchmark, training=training), found.values())}


def describe(questions: Mapping[str, Question]) -> str:
    """The number of questions, by split. Their texts are never shown."""
    splits = [one.split for one in questions.values()]
    return f"{len(splits)} questions ({', '.join(f'{splits.count(split)} {split}' for split in SPLITS)})"


def _published(one: PublishedQuestion, benchmark: str, training: bool) -> Question:
    split = split_by_hash(one.id.encode()) if training else "test"
    return Question(f"{benchmark}.{one.id}", one.text, (one.answer,), one.template or benchmark, split, one.canary)


def _own(tree: Any) -> Question:
    """Raises ValueError."""
    one = task_files.convert(tree, OwnQuestion)
    text = one.question.strip()
    if not text or len(text) > task_files.MAX_INTENT:
        raise ValueError(f"question: {len(text):,} characters; it must have 1 to {task_files.MAX_INTENT:,}")
    if bool(one.answer) == bool(one.answers):
        raise ValueError("give either answer, a text, or answers, a list of texts that are all right")
    answers = tuple(one.answers or [one.answer])
    if not all(answer.strip() and len(answer) <= MAX_ANSWER for answer in answers):
        raise ValueError(f"an answer is empty, or has more than {MAX_ANSWER:,} characters")
    name = str(one.id) if one.id is not None else short_hash(text)
    task_files.check_id(name)
    if not one.template.strip():
        raise ValueError("template: empty; leave it out, or name one")
    return Question(f"{OWN}.{name}", text, answers, one.template, one.split or split_by_hash(name.encode()))
