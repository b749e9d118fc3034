"""Labels collected episodes: the outcome of each, its milestones after every step, and the grade of its plan. It needs no site and no
browser.

mira label --folder runs/shop/demonstrations --out runs/shop/demonstrations-labelled

With `judge.kind=orm`, an outcome reward model decides the outcomes (docs/orm.md); with `judge.kind=model`, a chat model does
(docs/judging.md). With `milestones.kind=subgoals`, the subgoals of a file that `mira subgoals` has written are checked, in place of those
of the suite. With `milestones.checker`, a chat model or a trained checker decides about them in place of rules (docs/subgoals.md). With
`plan.kind`, plans are graded (docs/plans.md).
"""

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mira_jax import commands
from mira_jax.config import to_tree
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.shards import ShardReader
from rollouts.engine.needs import suite_needs
from rollouts.engine.worker import SuiteConfig
from rollouts.labels.judge import JudgeConfig, judge_needs, make_judge
from rollouts.labels.milestones import MilestonesConfig, milestone_needs, open_milestones, without_milestones
from rollouts.labels.outcome import label_folder, missing_label, read_left_out
from rollouts.labels.plans import PlanConfig, has_plan, open_plans, plan_needs
from rollouts.labels.subgoals import files
from rollouts.llm.usage import show
from rollouts.suites import make_suite


@dataclasses.dataclass(frozen=True)
class LabelConfig:
    folder: str = ""
    """Folder of the collected episodes."""
    out: str = ""
    """Output folder of the labelled episodes."""
    suite: SuiteConfig = dataclasses.field(default_factory=SuiteConfig)
    """The suite that the episodes were collected with."""
    judge: JudgeConfig = dataclasses.field(default_factory=JudgeConfig)
    """What decides the outcomes."""
    milestones: MilestonesConfig = dataclasses.field(default_factory=MilestonesConfig)
    """What decides the milestones."""
    plan: PlanConfig = dataclasses.field(default_factory=PlanConfig)
    """What grades the plans."""
    complete_only: bool = False
    """Leaves out the episodes that get no outcome, or, unless the suite's rules decide, no milestones, or with a `plan.kind` no grade of
    the plan. Training refuses these. They are counted, and listed in left_out.json."""
    overwrite: bool = False
    """Replaces the contents of `out`."""


def main(config: LabelConfig) -> int:
    suite = make_suite(config.suite.name, **config.suite.options)
    settings = to_tree(config.suite) | ({"judge": to_tree(config.judge)} if config.judge.kind != "rule" else {})
    chosen = config.milestones.settings()
    graded = config.plan.settings(suite)
    settings |= ({"milestones": chosen} if chosen else {}) | ({"plan": graded} if graded else {})
    settings |= {"complete_only": True} if config.complete_only else {}
    answers = f"{config.out}.answers"
    judge = make_judge(config.judge, suite, answers)
    lacks = functools.partial(missing_label, milestones=bool(chosen), plans=bool(graded)) if config.complete_only else None
    with open_milestones(config.milestones, suite, answers) as milestones, open_plans(config.plan, suite, answers) as plans:
        if not label_folder(Path(config.folder), Path(config.out), suite, config.overwrite, settings, judge, milestones, lacks, plans):
            print(f"{config.out}: labelled already")
            return 0
    labelled = ShardReader(config.out)
    judged = [trajectory.success for trajectory in labelled if trajectory.outcome is not None]
    print(f"{config.out}: {len(labelled)} episodes labelled, {sum(judged)} of {len(judged)} judged a success")
    if left_out := read_left_out(Path(config.out)):
        print(f"left out: {len(left_out)} episodes, {', '.join(f'{n} since {why}' for why, n in Counter(left_out.values()).items())}")
    elif chosen:
        known = files.read(config.milestones.file).subgoals if config.milestones.kind == "subgoals" else None
        missing, undecided = without_milestones(labelled, known)
        print(f"without milestones: {missing} whose task has no subgoals, {undecided} that the checker could not decide")
    if graded:
        print(_grades_line(labelled))
    show({**judge.usage, **milestones.usage, **(plans.usage if plans else {})})
    return 0


def _grades_line(labelled: Iterable[Trajectory]) -> str:
    found = [trajectory.plan_grade for trajectory in labelled if has_plan(trajectory)]
    scores = [grade.score for grade in found if grade]
    mean = f", mean R_plan {sum(scores) / len(scores):.3f}" if scores else ""
    return f"plans: {len(scores)} graded{mean}; {len(found) - len(scores)} without a grade"


def needs(config: LabelConfig, found: Needs) -> None:
    found.shards("folder", config.folder)
    found.output("out", config.out)
    suite_needs(config.suite, found)
    judge_needs(config.judge, found)
    milestone_needs(config.milestones, found)
    plan_needs(config.plan, found)


REQUIRED = {
    "folder": "name the folder of collected episodes, for example --folder runs/rollouts",
    "out": "name the folder to write, for example --out runs/labelled",
}
COMMAND = commands.Command("label", main, LabelConfig, __doc__, flags=("folder", "out"), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
