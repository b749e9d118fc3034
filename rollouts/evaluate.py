"""Evaluates a policy: collects one episode per held-out task, labels them, and writes the success rates.

    mira evaluate --config configs/demo/evaluate.yaml --out runs/demo/evaluation/mira

DIR/episodes contains the episodes and DIR/labelled the labelled ones. DIR/summary.json contains the figures, DIR/episodes.csv one
line per episode, and DIR/evaluation.html the page. Two policies evaluated with the same suite, split, templates, episodes
and seed get the same tasks, so they can be paired (`mira compare`). Run the same command again to resume.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mira_jax import commands, config
from mira_jax.config import Count
from mira_jax.errors import UserError
from mira_jax.files import now, write_atomically
from mira_jax.needs import OK, Needs, answers, report
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.summary import Summary
from rollouts.agents.plans import identity
from rollouts.analysis.evaluation import EPISODES, LABELLED, LOST, SUMMARY, read_episodes
from rollouts.analysis.figures import episode_table, gather, summarize, table
from rollouts.engine.needs import rollout_needs
from rollouts.engine.plan import plan
from rollouts.engine.pool import RolloutConfig, collect, lost_episodes, run
from rollouts.labels.judge import Rules, refuse_without_rules
from rollouts.labels.outcome import is_labelled, label_folder, read_usage
from rollouts.llm.usage import show
from rollouts.pages import evaluation as evaluation_page
from rollouts.suites import make_suite
from rollouts.suites.base import PartlyJudged

CONFIG = "evaluate.yaml"
TABLE = "episodes.csv"
PAGE = "evaluation.html"


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(RolloutConfig):
    split: str = "test"
    episodes: Count = 150
    dry_run: bool = False
    """Describes the run, counts its existing episodes, and checks what it needs, as `mira preflight` does. Writes nothing."""


def main(settings: EvaluateConfig) -> int:
    folder = Path(settings.out)
    if settings.dry_run:
        return _dry_run(settings, folder)
    _refuse_other_evaluation(settings, folder)
    _refuse_without_rules(settings)
    tally = collect(settings, folder / EPISODES, begun=lambda: write_atomically(folder / CONFIG, config.to_yaml(settings).encode()))
    lost = lost_episodes(folder / EPISODES / LOST)
    if len(lost) == tally.wanted:
        cause = lost[-1].error
        raise UserError(
            f"all {len(lost)} episodes were lost to infrastructure errors, the last one to: {cause}; fix the cause and run the same "
            "command again"
        )
    judged_by = config.to_tree(settings.suite)
    judge = Rules(make_suite(settings.suite.name, **settings.suite.options))
    if not is_labelled(folder / EPISODES, folder / LABELLED, judged_by):
        label_folder(folder / EPISODES, folder / LABELLED, judge.suite, overwrite=True, settings=judged_by, judge=judge)
    summary = _write(settings, folder, lost)
    print(table(summary))
    show(judge.usage)
    print(f"{folder / SUMMARY}: {tally.steps} new steps at {tally.steps_per_second:.1f} steps/s; the page is {folder / PAGE}")
    if lost:
        print(f"{len(lost)} of {tally.wanted} tasks are not in these rates: infrastructure errors; the same command tries them again")
    return 0


def _dry_run(settings: EvaluateConfig, folder: Path) -> int:
    """Prints a description of the run, if it can be made, and the checks of `mira preflight`. Returns the exit code."""
    found = Needs()
    needs(settings, found)
    if all(check.result == OK for check in found.checks):
        print(plan(settings, folder / EPISODES))
    return report([*found.checks, *run(answers(found.questions))])


def _write(settings: EvaluateConfig, folder: Path, lost: Sequence[Trajectory]) -> Summary:
    """Writes summary, table and page of the labelled episodes in `folder`. Returns the summary."""
    judged, given_up = read_episodes(ShardReader(folder / LABELLED), folder / LABELLED), read_episodes(lost, folder / EPISODES / LOST)
    prices, planner_prices = ((one.prompt_price, one.response_price) for one in (settings.policy.endpoint, settings.planner.model.endpoint))
    name = ", ".join(sorted({episode.policy.name for episode in judged}))
    method = summarize(name, judged, given_up, prices, planner_prices)
    summary = msgspec.structs.replace(
        gather({name: method}, judged), created=now(), task_seed=settings.seed, usage=read_usage(folder / LABELLED)
    )
    summaries.write(folder / SUMMARY, summary)
    write_atomically(folder / TABLE, episode_table([*judged, *given_up]).encode())
    write_atomically(folder / PAGE, evaluation_page.render(summary, judged, given_up).encode())
    return summary


def _refuse_other_evaluation(settings: EvaluateConfig, folder: Path) -> None:
    """Raises UserError if the folder contains another evaluation, or something that is no evaluation."""
    path = folder / CONFIG
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder; choose another out")
    if path.exists() and (folder / EPISODES).is_dir():
        before = config.load(EvaluateConfig, path)
        changed = [name for name in ("suite", "split", "templates", "episodes", "attempts", "seed", "policy", "observation", "limits")
                   if not config.same(_identity(getattr(before, name)), _identity(getattr(settings, name)))]  # fmt: skip
        if identity(before.planner) != identity(settings.planner):
            changed.append("planner")
        if before.browser.driver != settings.browser.driver:
            changed.append("browser.driver")
        if changed:
            raise UserError(f"{folder}: holds an evaluation with other settings ({', '.join(changed)}); choose another folder")
    elif any(entry.is_file() and entry != path for entry in folder.rglob("[!.]*")):
        raise UserError(f"{folder}: neither empty nor an evaluation; choose another folder")


def _refuse_without_rules(settings: EvaluateConfig) -> None:
    """Raises UserError before any episode if some of the tasks would have no outcome."""
    suite = make_suite(settings.suite.name, **settings.suite.options)
    if isinstance(suite, PartlyJudged):
        tasks = suite.tasks(settings.split, settings.templates, settings.episodes, settings.seed)
        refuse_without_rules(suite, tasks, "split", "an evaluation needs rules: use the split test, or mira collect and mira label")


def _identity(value: Any) -> Any:
    """Returns the part of a setting that identifies an evaluation. Addresses of endpoints and paths of tokenizers are left out.

    The episodes record their tokenizer, which `collect` compares.
    """
    tree = config.to_tree(value)
    return {key: item for key, item in tree.items() if key not in ("endpoint", "tokenizer")} if isinstance(tree, dict) else tree


def needs(settings: EvaluateConfig, found: Needs) -> None:
    found.output("out", settings.out)
    if settings.out:
        with found.attempt("out"):
            _refuse_other_evaluation(settings, Path(settings.out))
    rollout_needs(settings, found)
    if any(check.key == "suite" and check.result == OK for check in found.checks):
        with found.attempt("split"):
            _refuse_without_rules(settings)


REQUIRED = {"out": "name the folder to write, for example --out runs/evaluation"}
COMMAND = commands.Command("evaluate", main, EvaluateConfig, __doc__, flags=("out", "dry_run"), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
