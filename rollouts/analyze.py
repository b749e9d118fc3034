"""Analyses of labelled episodes.

    mira analyze subgoals --folder runs/x/labelled --truth runs/x/labelled-by-rule --out runs/x/subgoals-quality.json

subgoals: whether the share of subgoals done predicts success, and how subgoals and their checker agree with the true milestones of the
suite (docs/subgoals.md).

    mira analyze outcomes --folder runs/x/labelled-by-judge --truth runs/x/labelled-by-rule --out runs/x/agreement.json

outcomes: how the outcomes of a judge agree with those by rule (docs/judging.md). With `page`, the figures are also written as an HTML page.

    mira analyze plans --folder runs/x/labelled --page runs/x/plans.html

plans: success given a right and a wrong plan, and how R_plan tells successes from failures (docs/plans.md).

    mira analyze rubric --folder runs/x/graded --truth runs/x/graded-by-rules --set rubric=runs/x/rubrics/rubric-0001.yaml

rubric: whether a rubric is accepted. A model that grades by it must agree with the suite's rules or with people. The exit code is 1 if it
is not accepted.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mira_jax import commands
from mira_jax.config import Level, Natural
from mira_jax.errors import ConfigError
from mira_jax.files import to_json, write_atomically
from mira_jax.needs import Needs
from mira_jax.trajectories.shards import ShardReader
from rollouts.analysis import outcomes, plans, rubric, subgoals
from rollouts.analysis.rubric import AcceptanceConfig
from rollouts.labels import human_grades
from rollouts.labels.outcome import read_usage
from rollouts.labels.rubric_versions import refuse_other_rubric
from rollouts.labels.subgoals import files
from rollouts.pages import outcomes as outcomes_page
from rollouts.pages import plans as plans_page
from rollouts.pages import rubric as rubric_page
from rollouts.pages import subgoals as subgoals_page


@dataclasses.dataclass(frozen=True)
class AnalyzeConfig:
    analysis: str = ""
    """What is analysed: subgoals, outcomes, plans or rubric."""
    folder: str = ""
    """Folder of labelled episodes."""
    truth: str = ""
    """Folder of the same episodes with their true labels. Required for outcomes, and for rubric without `labels`. Empty: no comparison with
    the truth."""
    subgoals: str = ""
    """subgoals: the file of the subgoals, for what the requests of its generator used."""
    forced: list[str] = dataclasses.field(default_factory=list)
    """plans: folders of labelled episodes with forced plans (`policy.forced_plan`), right and wrong ones."""
    rubric: str = ""
    """rubric: the file by which the plans in `folder` were graded. Required."""
    labels: str = ""
    """rubric: a file of grades by people, in place of `truth`."""
    acceptance: AcceptanceConfig = dataclasses.field(default_factory=AcceptanceConfig)
    """rubric: the bounds."""
    level: Level = 0.95
    """Confidence level of the intervals."""
    resamples: Annotated[int, Meta(ge=100)] = 2000
    """Number of bootstrap resamples."""
    seed: Natural = 0
    """Seed of the bootstrap."""
    out: str = ""
    """Optional JSON file for the figures."""
    page: str = ""
    """Optional HTML file."""

    def __post_init__(self) -> None:
        if self.analysis and self.analysis not in ANALYSES:
            raise ConfigError("analysis", f"{self.analysis!r} is none of {', '.join(ANALYSES)}")


@dataclasses.dataclass(frozen=True)
class Analysed:
    """The result of an analysis."""

    text: str
    tree: dict[str, Any]
    """For the JSON file."""
    page: str
    """HTML."""
    refused: bool = False
    """Whether what was analysed is not accepted."""


def main(config: AnalyzeConfig) -> int:
    found = ANALYSES[config.analysis](config)
    if config.out:
        write_atomically(config.out, to_json(found.tree, indent=1).encode())
    if config.page:
        write_atomically(config.page, found.page.encode())
    print(found.text)
    return int(found.refused)


def analyse_subgoals(config: AnalyzeConfig) -> Analysed:
    labelled, without = subgoals.endings(ShardReader(config.folder))
    truth = subgoals.endings(ShardReader(config.truth))[0] if config.truth else None
    findings = subgoals.analyse(labelled, without, truth, config.level, config.resamples, config.seed)
    usages: dict[str, dict[str, float]] = {}
    if config.subgoals and (used := files.read(config.subgoals).usage):
        usages["generator"] = used
    usages |= msgspec.to_builtins(read_usage(Path(config.folder)))
    tree = {"folder": config.folder, "truth": config.truth, **subgoals.to_tree(findings), "usage": usages}
    return Analysed(subgoals.table(findings, usages), tree, subgoals_page.render(findings, config.folder))


def analyse_outcomes(config: AnalyzeConfig) -> Analysed:
    if not config.truth:
        raise ConfigError("truth", "name the folder of the same episodes, labelled by rule (judge.kind=rule)")
    judged, truth = ShardReader(config.folder), ShardReader(config.truth)
    findings = outcomes.analyse(judged, truth, config.level, config.resamples, config.seed)
    tree = {"folder": config.folder, "truth": config.truth, **outcomes.to_tree(findings)}
    return Analysed(outcomes.table(findings), tree, outcomes_page.render(findings, config.folder))


def analyse_plans(config: AnalyzeConfig) -> Analysed:
    episodes = itertools.chain(ShardReader(config.folder), *map(ShardReader, config.forced))
    findings = plans.analyse(episodes, config.level, config.resamples, config.seed)
    tree = {"folder": config.folder, "forced_folders": config.forced, **plans.to_tree(findings)}
    return Analysed(plans.table(findings), tree, plans_page.render(findings, config.folder))


def analyse_rubric(config: AnalyzeConfig) -> Analysed:
    if bool(config.truth) == bool(config.labels):
        raise ConfigError("truth", "name a folder of plans graded by rules (plan.kind=suite), or in $.labels grades of people; not both")
    if not config.rubric:
        raise ConfigError("rubric", "name the file by which the plans were graded (plan.rubric of mira label)")
    graded = ShardReader(config.folder)
    refuse_other_rubric(config.rubric, graded)
    if config.labels:
        people = human_grades.read(config.labels)
        yardsticks = {name: rubric.Yardstick(one.grades, one.right) for name, one in people.items() if one.grades}
    else:
        yardsticks = rubric.by_rules(ShardReader(config.truth))
    findings = rubric.analyse(graded, yardsticks, config.acceptance, config.level, config.resamples, config.seed)
    tree = {"folder": config.folder, "truth": config.truth, "labels": config.labels, **rubric.to_tree(findings, config.acceptance)}
    page = rubric_page.render(findings, config.acceptance, config.folder)
    return Analysed(rubric.table(findings), tree, page, bool(findings.refused))


ANALYSES: dict[str, Callable[[AnalyzeConfig], Analysed]] = {
    "subgoals": analyse_subgoals,
    "outcomes": analyse_outcomes,
    "plans": analyse_plans,
    "rubric": analyse_rubric,
}
"""The analyses by name, the values of `AnalyzeConfig.analysis`."""


def needs(config: AnalyzeConfig, found: Needs) -> None:
    found.shards("folder", config.folder)
    found.shards("truth", config.truth)
    found.input("subgoals", config.subgoals)
    for place, folder in enumerate(config.forced):
        found.shards(f"forced.{place}", folder)
    found.input("labels", config.labels)
    found.output("out", config.out)
    found.output("page", config.page)


REQUIRED = {
    "analysis": "name what to analyse, for example mira analyze subgoals",
    "folder": "name a folder that mira label has written, for example --folder runs/labelled",
}
FLAGS = ("folder", "truth", "out", "page")
COMMAND = commands.Command("analyze", main, AnalyzeConfig, __doc__, flags=FLAGS, positional=("analysis",), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
