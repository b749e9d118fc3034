"""Outcomes of evaluations by method and seed: tables over seeds, and small files from which anyone can compute them again."""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
from scipy import stats

from mira_jax.errors import UserError
from mira_jax.files import write_atomically
from rollouts.analysis import statistics
from rollouts.analysis.evaluation import Evaluation

ALL = "all"


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """One evaluation."""

    tasks: str
    """A digest of the tasks, equal for evaluations of the same tasks."""
    by_template: Mapping[str, str]
    """Template to one character for each task, in the order of the tasks' names: 1 if it was solved, else 0."""
    start: str = ""
    """A digest of what methods of one seed share: the policy and the scores that training began with. "" if there is none."""

    def solved(self) -> dict[str, list[int]]:
        """1 or 0 for each task, by template and of all."""
        found = {template: list(map(int, marks)) for template, marks in self.by_template.items()}
        return {**found, ALL: [mark for marks in found.values() for mark in marks]}


OfMethods = Mapping[str, Mapping[int, Outcomes]]
"""Method to seed to outcomes."""


def outcomes(evaluation: Evaluation) -> Outcomes:
    """Raises UserError if a task has no outcome."""
    if missing := len(evaluation.lost) + len(evaluation.episodes) - len(evaluation.judged):
        raise UserError(f"{evaluation.name}: {missing} episodes have no outcome; run the evaluation again")
    judged = sorted(evaluation.judged, key=lambda one: one.key)
    digest = hashlib.sha256(msgspec.json.encode([(one.key, one.spec) for one in judged])).hexdigest()[:16]
    marks = collections.defaultdict(str)
    for one in judged:
        marks[one.template] += str(int(one.success))
    return Outcomes(digest, dict(sorted(marks.items(), key=lambda item: (len(item[0]), item[0]))))


def save(path: Path, found: OfMethods) -> None:
    """Writes a line for each evaluation. Lines of other methods and seeds are kept."""
    merged = {method: dict(of_seed) for method, of_seed in (load(path) if path.exists() else {}).items()}
    for method, of_seed in found.items():
        merged.setdefault(method, {}).update(of_seed)
    rows = [
        {"method": method, "seed": seed, "tasks": one.tasks} | ({"start": one.start} if one.start else {}) | {"solved": one.by_template}
        for method, of_seed in sorted(merged.items())
        for seed, one in sorted(of_seed.items())
    ]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def load(path: str | Path) -> dict[str, dict[int, Outcomes]]:
    found: dict[str, dict[int, Outcomes]] = {}
    for row in map(json.loads, Path(path).read_text(encoding="utf-8").splitlines()):
        found.setdefault(row["method"], {})[row["seed"]] = Outcomes(row["tasks"], row["solved"], row.get("start", ""))
    return found


def rates(of_seed: Iterable[Outcomes]) -> dict[str, list[float]]:
    """Success rate by template and of all tasks, one value per seed."""
    found = collections.defaultdict(list)
    for one in of_seed:
        for template, marks in one.solved().items():
            found[template].append(float(np.mean(marks)))
    return found


def differences(pairs: Iterable[tuple[Outcomes, Outcomes]]) -> dict[str, list[Fraction]]:
    """Success of the second minus that of the first, by template and of all tasks, one value per seed.

    Raises:
        UserError: the two are evaluations of different tasks, or of policies that began differently.
    """
    found = collections.defaultdict(list)
    for first, second in pairs:
        if first.tasks != second.tasks:
            raise UserError("evaluations of different tasks; run both with the same config")
        if first.start != second.start:
            raise UserError("training began with another policy or other scores; run both methods in the same folder of a study")
        mine, theirs = second.solved(), first.solved()
        for template, marks in mine.items():
            found[template].append(Fraction(sum(marks) - sum(theirs[template]), len(marks)))
    return found


def print_table(of_method: OfMethods, against: Sequence[str]) -> None:
    """Prints success rates by template, and each method minus those in `against`. The sample are the seeds.

    Args:
        of_method: the same seeds and tasks for all methods.
    """
    seeds = list(next(iter(of_method.values())))
    rows = {method: rates(of_seed.values()) for method, of_seed in of_method.items()}
    templates = list(next(iter(rows.values())))
    print(f"success in % over {len(seeds)} seeds, with {statistics.SEED_INTERVAL}, 95 %\n")
    print("| method | " + " | ".join(templates) + " |\n" + "|---" * (len(templates) + 1) + "|")
    for method, row in sorted(rows.items(), key=lambda item: -np.mean(item[1][ALL])):
        print(f"| {method} | " + " | ".join(interval(row[template]) for template in templates) + " |")
    if len(seeds) < 2:
        return
    for reference in against:
        others = [method for method in of_method if method != reference]
        pairs = {other: [(of_method[reference][seed], of_method[other][seed]) for seed in seeds] for other in others}
        found = {other: differences(pairs[other]) for other in others}
        p_values = {other: float(stats.ttest_1samp(list(map(float, found[other][ALL])), 0).pvalue) for other in others}
        adjusted = statistics.holm(p_values)
        print(f"\n| minus {reference} | " + " | ".join(templates) + " | p (paired t) | Holm | p (sign flip) |")
        print("|---" * (len(templates) + 4) + "|")
        for other in others:
            cells = " | ".join(interval(list(map(float, found[other][template]))) for template in templates)
            flipped = statistics.sign_flip(found[other][ALL])
            print(f"| {other} | {cells} | {p_values[other]:.2g} | {adjusted[other]:.2g} | {flipped:.2g} |")


def interval(values: Sequence[float], scale: float = 100, digits: int = 1) -> str:
    """Mean and half the width of Student's 95 % interval, by default in percent."""
    bounds = statistics.t_interval(values) if len(values) > 1 else None
    half = f" ± {scale * (bounds[1] - bounds[0]) / 2:.{digits}f}" if bounds else ""
    return f"{scale * np.mean(values):.{digits}f}{half}"
