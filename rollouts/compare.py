"""Compares evaluations of the same tasks, paired by task: wins, losses, ties, and a significance test.

    mira compare runs/demo/evaluations/sft runs/demo/evaluations/recommended

The first folder is the baseline. A folder was written by `mira evaluate`, or contains labelled shards. This compares two
policies. To compare two training methods, give the runs of several seeds, with {seed} in place of the number:

    mira compare 'runs/seed-{seed}/evaluations/sft' 'runs/seed-{seed}/evaluations/mira' --set seeds=[0,1,2]
"""

import dataclasses
import sys

import msgspec

from mira_jax import commands
from mira_jax.config import Level
from mira_jax.errors import ConfigError
from mira_jax.files import to_json, write_atomically
from mira_jax.needs import Needs
from mira_jax.trajectories.summary import Rate, SeedComparison, p_value, points, verdict
from rollouts.analysis.evaluation import Evaluation
from rollouts.analysis.paired import Paired, PairedTask, compare_tasks, over_seeds
from rollouts.pages.episodes import visible

PLACE = "{seed}"


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    baseline: str = ""
    """Evaluation folder of the baseline."""
    treatment: str = ""
    """Evaluation folder of the treatment, on the same tasks."""
    seeds: list[int] = dataclasses.field(default_factory=list)
    """Training seeds. Each replaces {seed} in both folders, and the two evaluations of a seed are paired."""
    json: str | None = None
    """Path of a JSON file for the full comparison, with the complete task lists."""
    level: Level = 0.95
    """Confidence level of the intervals."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigError("seeds", f"{self.seeds} contains a seed twice; list each seed once")
        for name in ("baseline", "treatment"):
            folder = getattr(self, name)
            if folder and self.seeds and PLACE not in folder:
                raise ConfigError(name, f"{folder} is the same run for every seed; write {PLACE} where the seed stands")
            if not self.seeds and PLACE in folder:
                raise ConfigError("seeds", f"{folder} contains {PLACE}; list the seeds, for example --set seeds=[0,1,2]")


def main(config: CompareConfig) -> int:
    if config.seeds:
        tree = _compare_seeds(config)
    else:
        paired = compare_tasks(*(Evaluation(folder, folder) for folder in (config.baseline, config.treatment)), config.level)
        print(text(paired))
        tree = _tree(paired)
    if config.json:
        write_atomically(config.json, to_json(tree, indent=1).encode())
    return 0


def text(paired: Paired) -> str:
    one = paired.comparison
    width = max(len(one.baseline), len(one.treatment))
    solved = sum(task.baseline == task.baseline_attempts and task.treatment == task.treatment_attempts for task in paired.ties)
    neither = sum(task.baseline == task.treatment == 0 for task in paired.ties)
    lines = [
        f"baseline   {one.baseline:{width}}  {_rate(paired.baseline_rate)}",
        f"treatment  {one.treatment:{width}}  {_rate(paired.treatment_rate)}",
        f"difference {points(one, paired.level)}",
        f"{one.tasks} tasks: {verdict(one)}",
        *_tasks("wins", paired.wins),
        *_tasks("losses", paired.losses),
        f"ties: {solved} solved by both at every attempt, {neither} by neither; --json FILE lists them",
    ]
    if one.left_out:
        lines.append(f"left out after infrastructure errors: {visible(', '.join(one.left_out))}")
    lines.append("this compares two policies; of the methods that trained them it says nothing beyond this run of each (--set seeds=[...])")
    return "\n".join(lines)


def seeds_text(pairs: dict[int, Paired], over: SeedComparison, level: float) -> str:
    """Formats one line per seed, and the comparison over all seeds."""
    width = max(len(str(seed)) for seed in [*pairs, "seed"])
    lines = [
        f"baseline   {over.baseline}",
        f"treatment  {over.treatment}",
        f"{'seed':>{width}}  baseline  treatment  difference   wins  losses   ties  p, {over.sided}",
    ]
    for seed, pair in pairs.items():
        one, rates = pair.comparison, [100 * rate.mean for rate in (pair.baseline_rate, pair.treatment_rate)]
        means = f"{rates[0]:6.1f} %  {rates[1]:7.1f} %  {100 * one.difference:+10.1f}"
        lines.append(f"{seed:>{width}}  {means}  {one.wins:5d}  {one.losses:6d}  {one.ties:5d}  {p_value(one.p_value)}")
    lines.append("")
    if len(pairs) < 2:
        return "\n".join([*lines, "one seed: no conclusion about the methods is possible; list at least two seeds"])
    lines.append(f"over {len(pairs)} seeds, on these tasks: {points(over, level)} ({over.interval})")
    least = f"{len(pairs)} seeds can give no p below {p_value(over.smallest_p)}"
    lines.append(f"{over.test}, {over.sided}: p = {p_value(over.p_value)}; {least}")
    if over.low is None:
        lines.append("no interval: the differences of all seeds are equal, so the variation between seeds is unknown")
    return "\n".join(lines)


def _compare_seeds(config: CompareConfig) -> dict[str, object]:
    pairs, models = {}, {}
    for seed in config.seeds:
        folders = [folder.replace(PLACE, str(seed)) for folder in (config.baseline, config.treatment)]
        evaluations = [Evaluation(folder, folder) for folder in folders]
        for place, evaluation in enumerate(evaluations):
            _refuse_known_models(models.setdefault(place, {}), evaluation)
        pairs[seed] = compare_tasks(*evaluations, config.level)
    over = over_seeds(pairs, (config.baseline, config.treatment), config.level)
    print(seeds_text(pairs, over, config.level))
    seeds = {str(seed): _tree(pair) for seed, pair in pairs.items()}
    return {"over_seeds": msgspec.to_builtins(over), "level": config.level, "seeds": seeds}


def _refuse_known_models(known: dict[str, str], evaluation: Evaluation) -> None:
    """Adds the evaluation's models to `known`, which maps fingerprint to folder. Refuses a known one: the same model is no second seed."""
    for fingerprint in {one.policy.fingerprint for one in evaluation.judged} - {""}:
        if fingerprint in known:
            raise ConfigError("seeds", f"{known[fingerprint]} and {evaluation.name} are of the same model; name runs of different seeds")
        known[fingerprint] = evaluation.name


def _tree(paired: Paired) -> dict[str, object]:
    return msgspec.to_builtins(dataclasses.asdict(paired))


def _rate(rate: Rate) -> str:
    return f"{100 * rate.mean:5.1f} %   {100 * rate.low:5.1f} - {100 * rate.high:5.1f} %"


def _tasks(name: str, tasks: list[PairedTask]) -> list[str]:
    return [f"{name}:", *(f"  {visible(task.task)}{_counts(task)}" for task in tasks)] if tasks else []


def _counts(task: PairedTask) -> str:
    """Counts of attempts, if there are several."""
    if task.baseline_attempts == task.treatment_attempts == 1:
        return ""
    if task.baseline_attempts == task.treatment_attempts:
        return f" ({task.baseline} to {task.treatment} of {task.treatment_attempts})"
    return f" ({task.baseline} of {task.baseline_attempts} to {task.treatment} of {task.treatment_attempts})"


def needs(config: CompareConfig, found: Needs) -> None:
    for key in REQUIRED:
        for seed in config.seeds or [0]:
            found.input(key, getattr(config, key).replace(PLACE, str(seed)))


REQUIRED = dict.fromkeys(("baseline", "treatment"), "name two evaluations, the baseline first: mira compare runs/a runs/b")
COMMAND = commands.Command(
    "compare", main, CompareConfig, __doc__, flags=("json",), positional=("baseline", "treatment"), required=REQUIRED, needs=needs
)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
