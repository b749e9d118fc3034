"""The `mira` console script: a table of commands. Each is a module that also runs with `python -m`."""

import dataclasses
import difflib
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from mira_jax import extras
from mira_jax.commands import Command
from mira_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the table."""

    module: str
    """The module that defines `COMMAND`. It is imported when the command runs."""
    about: str
    extra: str = ""
    """The extra of the package that the command needs."""
    config: str | None = None
    """The config file to read when `--config` is not given."""

    def load(self) -> Command:
        return importlib.import_module(self.module).COMMAND


COMMANDS = {
    "demo": Entry("mira_jax.phases", "run one phase of MiRA on the sites in the package", "train", "configs/demo/phases.yaml"),
    "phases": Entry("mira_jax.phases", "run a list of stages from end to end"),
    "collect": Entry("rollouts.collect", "attempt tasks in a browser and write the episodes as shards"),
    "propose-tasks": Entry("rollouts.propose_tasks", "propose tasks for the next phase from failed ones"),
    "choose-tasks": Entry("rollouts.choose_tasks", "keep proposed tasks of a suitable difficulty that can be done"),
    "subgoals": Entry("rollouts.subgoals", "write subgoals for tasks that have no milestones"),
    "label": Entry("rollouts.label", "decide outcome and milestones of collected episodes, and grade their plans"),
    "rubric": Entry("rollouts.rubric", "propose later versions of the rubric by which plans are graded"),
    "train": Entry("mira_jax.train", "train a policy or a critic", "train"),
    "online": Entry("mira_jax.online", "train a policy on its own episodes, round after round: GRPO and Anchor-GRPO"),
    "train-online": Entry("mira_jax.train_online", "the trainer of `mira online`, for a host of its own", "train"),
    "score": Entry("mira_jax.score", "compute log-probs, V and P of every step, and judge episodes by an ORM", "train"),
    "diagnose": Entry("mira_jax.diagnose", "measure how training changed a policy: ratios, room to move, KL, entropy", "train"),
    "replay": Entry("mira_jax.replay", "select successful steps of earlier phases to train on again", "train"),
    "serve": Entry("mira_jax.serve", "serve a policy as an OpenAI-compatible endpoint", "train"),
    "evaluate": Entry("rollouts.evaluate", "measure a policy on held-out tasks"),
    "compare": Entry("rollouts.compare", "compare two evaluations task by task, or two methods over seeds"),
    "analyze": Entry("rollouts.analyze", "measure subgoals, a judge, the effect of plans, or a rubric"),
    "report": Entry("rollouts.report", "write the HTML page of several evaluations"),
    "export": Entry("mira_jax.export", "write a policy as a Hugging Face folder", "train"),
    "convert": Entry("mira_jax.convert", "convert episodes between shards and the formats of other programs"),
    "import-model": Entry("mira_jax.import_model", "import weights from Hugging Face or Google", "train"),
    "size": Entry("mira_jax.size", "compute memory and time of a training step on given accelerators", "train"),
    "arena": Entry("mira_arena.__main__", "serve the sites in the package to your own browser"),
    "openenv": Entry("rollouts.openenv.__main__", "serve the tasks of a suite as an environment of OpenEnv"),
    "webarena-report": Entry("rollouts.suites.webarena.__main__", "tabulate an evaluation of WebArena-Lite"),
    "infinity-check": Entry("rollouts.suites.infinity.__main__", "find tasks of WebArena-Infinity that pass without any action"),
    "preflight": Entry("mira_jax.preflight", "list everything that a command lacks, without starting it"),
    "completion": Entry("mira_jax.completion", "print a script for shell completion"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"mira {version()}")
        return 0
    try:
        config, command = entry(name).config, load(name)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return command.run(rest, config=config)


def entry(name: str) -> Entry:
    """Raises UserError if there is no command of that name."""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.0)[0]
        raise UserError(f"mira {name}: no such command; did you mean mira {near}? mira --help lists all")
    return COMMANDS[name]


def load(name: str) -> Command:
    """Imports a command. Raises UserError if one of its requirements is not installed."""
    found = entry(name)
    extras.require(found.extra)
    if found.module.startswith("rollouts."):
        extras.refuse_foreign_rollouts()
    return dataclasses.replace(found.load(), name=name)


def version() -> str:
    try:
        return importlib.metadata.version("mira-jax")
    except importlib.metadata.PackageNotFoundError:
        return "of a source tree that is not installed"


def help_text() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        (
            "usage: mira COMMAND [options]",
            "",
            "Train web agents that finish long tasks: MiRA in JAX.",
            "",
            "commands:",
            *(f"  {name:{width}}  {entry.about}" for name, entry in COMMANDS.items()),
            "",
            "mira COMMAND --help lists the command's flags and every key of its config. mira --version prints the version.",
        )
    )
