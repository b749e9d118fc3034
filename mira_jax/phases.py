"""Runs phases from end to end: lists of commands, each a process, each skipped if it is complete.

    mira demo --set seed=1
    mira phases --config configs/phases/tours.yaml --dry-run

`mira_jax.stages` describes the stages and their placeholders, and docs/phases.md the phases of MiRA. If it is interrupted, the same
command resumes. A run folder with other settings is renamed, never overwritten.
"""

import contextlib
import importlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mira_jax import commands, pruning, stage_processes
from mira_jax import config as configs
from mira_jax.errors import UserError
from mira_jax.files import sole_writer
from mira_jax.stage_records import RECORDS, StageRecord, fingerprint, move_other_run_aside
from mira_jax.stages import PhasesConfig, Stage, expand, fill_values, parallel_groups, phase_stages, prunable_paths

# doit and Snakemake were considered. Both run a graph of tasks in parallel, and rerun only the tasks whose inputs have changed;
# Snakemake also submits to clusters. Here the stages are few and form one chain, and each command resumes its own work, so either
# would replace only a list and a record of completed stages. The rest would still have to be written: serving a model on a free port
# during a stage, ending child processes with their parent even if it is killed, and giving an interrupted stage time to save.
# By default Snakemake also removes the declared output of a failed task, from which the commands here resume. A stage is an ordinary
# command, so a study with many runs can call it from either tool.


def main(config: PhasesConfig) -> int:
    stages = expand(config)
    if config.dry_run:
        return dry_run(config, stages)
    out = Path(config.out)
    if missing := missing_needs(config):
        raise UserError("needs: " + "; ".join(missing))
    fingerprint_of_run = _fingerprint(config, stages)
    with sole_writer(out, "a run of phases"):
        move_other_run_aside(out, fingerprint_of_run)
    started = time.monotonic()
    with sole_writer(out, "a run of phases"), stage_processes.sigterm_as_interrupt():
        for group in parallel_groups(stages):
            _run(config, out, stages, group, started)
            if config.prune:
                _prune(config, stages)
    minutes = {stage.name: _record(out, stage).seconds / 60 for stage in stages}
    _say("minutes: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()) + f"; in all {sum(minutes.values()):.1f}")
    return 0


def _run(config: PhasesConfig, out: Path, stages: Sequence[Stage], group: Sequence[Stage], started: float) -> None:
    """Runs stages at the same time, except those that are complete."""
    titles = {stage.name: f"[{number}/{len(stages)}] {stage.name}" for number, stage in enumerate(stages, 1)}
    records = {stage.name: _record(out, stage) for stage in group}
    ahead = [stage for stage in group if stage.always or not records[stage.name].complete]
    for stage in group:
        title, record = titles[stage.name], records[stage.name]
        if stage not in ahead:
            _say(f"{title}: done before, {record.seconds / 60:.1f} min")
        else:
            _say(f"{title}: {stage.about}" if stage.about else title)
    if not ahead:
        return
    with contextlib.ExitStack() as stack:
        for stage in ahead:
            stack.enter_context(records[stage.name].timed(len(ahead)))
        stage_processes.run(out, [(stage, stack.enter_context(_served(config, stage))) for stage in ahead])
    elapsed = (time.monotonic() - started) / 60
    for stage in ahead:
        shared = f", in parallel with {len(ahead) - 1} more" if len(ahead) > 1 else ""
        _say(f"{titles[stage.name]}: {records[stage.name].seconds / 60:.1f} min{shared} ({elapsed:.1f} min in all)")


def _record(out: Path, stage: Stage) -> "StageRecord":
    return StageRecord(out / RECORDS / f"{stage.name}.json")


def _prune(config: PhasesConfig, stages: Sequence[Stage]) -> None:
    """Removes what is prunable of the phases that are complete."""
    complete = {stage.name for stage in stages if _record(Path(config.out), stage).complete}
    ahead = [stage for stage in stages if stage.name not in complete or stage.always]
    for phase in range(1, config.phases + 1):
        if all(stage.name in complete for stage in phase_stages(config, phase)):
            for path, size in pruning.prune(config.out, prunable_paths(config, phase), ahead):
                _say(f"pruned {path}: {size / 1e6:,.1f} MB")


def dry_run(config: PhasesConfig, stages: Sequence[Stage]) -> int:
    """Prints the stages, and what is missing to run them. Returns 1 if anything is missing."""
    out, missing = Path(config.out), missing_needs(config)
    for number, stage in enumerate(stages, 1):
        done = (out / RECORDS / f"{stage.name}.json").exists() and _record(out, stage).complete
        print(f"[{number}/{len(stages)}] {stage.name}: {'done' if done else 'to run'}" + (f"; {stage.about}" if stage.about else ""))
        overrides = {stage.serve.url: "http://127.0.0.1:1/v1"} if stage.serve else {}
        if stage.serve and stage.serve.name:
            overrides[stage.serve.name] = stage.serve.model
        print(f"    {shlex.join(stage_processes.command_of(stage, overrides)[1:])}")
        missing += [f"stage {stage.name}: {problem}" for problem in _problems(stage, overrides)]
    print(f"{out}: {len(stages)} stages, {config.phases} phases; " + ("nothing is missing" if not missing else "missing:"))
    for line in missing:
        print(f"  {line}")
    return 1 if missing else 0


def _problems(stage: Stage, overrides: dict[str, Any]) -> Iterator[str]:
    """Why the stage's command or config does not load."""
    try:
        command = importlib.import_module(stage.module).COMMAND
        configs.load(
            command.config_type, stage.configs, [stage_processes.override(key, value) for key, value in (stage.set | overrides).items()]
        )
    except (UserError, ImportError) as error:
        yield str(error)


def missing_needs(config: PhasesConfig) -> list[str]:
    """What the run needs and does not find, each with how to get it."""
    missing = []
    for name, advice in config.needs.items():
        name = fill_values(name, config)
        found = bool(os.environ.get(name[1:])) if name.startswith("$") else configs.find(Path(name)).exists()
        if not found:
            what = f"the environment variable {name[1:]} is not set" if name.startswith("$") else f"{name} does not exist"
            missing.append(f"{what}: {advice}")
    return missing


@contextlib.contextmanager
def _served(config: PhasesConfig, stage: Stage) -> Iterator[dict[str, Any]]:
    """Serves `stage.serve.model` while the stage runs, and yields the overrides that point at it."""
    if not stage.serve:
        yield {}
        return
    out, model = Path(config.out), stage.serve.model
    ready = out / RECORDS / f"{stage.name}.serve.json"
    server = fill_values(config.serve_config, config) if config.serve_config else None
    with stage_processes.served(out, stage.name, model, ready, server) as address:
        # The name is part of every episode's key and so of its random draws: the same in any run folder.
        yield {stage.serve.url: address} | ({stage.serve.name: os.path.relpath(model, out)} if stage.serve.name else {})


def _fingerprint(config: PhasesConfig, stages: Sequence[Stage]) -> str:
    """Changes with the seed, the stages of one phase, and the content of every config they name. It does not depend on the number of
    phases, so a run can be resumed with more."""
    free = ("out", "phases", "needs", "prune", "prunable", "dry_run")
    tree = {key: value for key, value in configs.to_tree(config).items() if key not in free}
    for key in ("stages", "each_phase", "after"):
        # When a stage runs does not change what it does.
        tree[key] = [{name: value for name, value in stage.items() if name != "parallel"} for stage in tree[key]]
    named = {path: f"stage {stage.name}" for stage in reversed(stages) for path in stage.configs}
    if config.serve_config:
        named[fill_values(config.serve_config, config)] = "serve_config"
    return fingerprint(tree, named)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


COMMAND = commands.Command("phases", main, PhasesConfig, __doc__, flags=("out", "prune", "dry_run"))

if __name__ == "__main__":
    sys.exit(COMMAND.run())
