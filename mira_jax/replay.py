"""Selects successful steps of earlier phases to train on again, by WebRL's replay filter.

    mira replay --config configs/phases/replay.yaml --out runs/x/replay

WebRL (arXiv 2411.02337, section 3) keeps the successful trajectories of earlier phases, and adds to the data of a phase the actions,
with their states, whose perplexity under the current actor is in [1/0.95, 1/0.5]. The selection is therefore of steps. An advantage
needs the rest of the episode too: the next state's value and the outcome. The command therefore writes whole episodes, and beside them
which of their steps were selected:

    OUT/episodes-00000.array_record   the episodes with a selected step; possibly none
    OUT/selection.npz                 keep: 1 for a selected step, 0 for the others (`data.selections` of `mira train`)
    OUT/policy.npz                    log_prob, token_count of all their steps, and what `scores` have of their tokens; the reference of
                                      the actor's objective
    OUT/replay.json                   what it was made from, the settings and the counts

Without episodes, as in the first phase, or without an eligible step, these files exist and are empty. Run again, the command
compares `replay.json` with its inputs: it keeps the folder if they are equal, and refuses it otherwise.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from mira_jax import commands
from mira_jax.config import Natural, NonNegative
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import parse_json, partial_folder, publish, read_json, sole_writer, to_json, write_atomically
from mira_jax.recipes.labels import StepLabels, column, read_labels
from mira_jax.rl import replay
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.shards import ShardReader, write_shard
from mira_jax.trajectories.side_tables import SideTable, check, selected_steps, tokens_of

REPLAY = "replay.json"
SELECTION = "selection.npz"
REFERENCE = "policy.npz"
SHARD = "episodes-00000.array_record"
COLUMNS = ("log_prob", "token_count")


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    episodes: list[str] = dataclasses.field(default_factory=list)
    """Folders of the labelled episodes of earlier phases. None in the first phase."""
    scores: list[str] = dataclasses.field(default_factory=list)
    """Side tables with `log_prob` and `token_count` of these episodes under the current actor (`mira score`, policy)."""
    current: list[str] = dataclasses.field(default_factory=list)
    """Folders of the episodes of this phase. Their number of steps limits the selection."""
    out: str = ""
    """The folder to write."""
    lowest: Annotated[float, Meta(ge=1)] = replay.LOWEST
    """Lowest perplexity of a selected step. Steps below it are too easy."""
    highest: Annotated[float, Meta(ge=1)] = replay.HIGHEST
    """Highest perplexity of a selected step. Steps above it are too unlikely."""
    most: NonNegative = 2.0
    """Maximum number of selected steps, in units of the number of steps of this phase."""
    first_per_task: bool = True
    """Use only the first success of each task (id and seed), in the order of the folders and of their episodes, as WebRL's code does.
    If phases repeat tasks, this prefers the earlier phases; set it to false then."""
    seed: Natural = 0
    """Seed that draws the steps if more than the maximum are eligible."""


def main(config: ReplayConfig) -> int:
    _require(config)
    out = Path(config.out)
    with sole_writer(out.parent, f"the replay of {out.name}"):
        current = _sound_steps(ShardReader(config.current))
        reader = ShardReader(config.episodes) if config.episodes else None
        tables = [SideTable.read(path) for path in config.scores]
        made_from = _made_from(config, current, reader, tables)
        if _exists(out, made_from):
            print(f"{out}: complete")
            return 0
        eligible = eligible_steps(reader, tables, config) if reader else np.zeros(0, bool)
        selected = replay.limit(eligible, current, config.most, config.seed)
        with partial_folder(out) as partial:
            counts = _write(partial, reader, tables, eligible, selected)
            write_atomically(partial / REPLAY, to_json({"made_from": made_from, "counts": counts}, indent=1).encode())
            publish(partial, out)
    print(
        f"{out}: {counts['selected']} of {counts['eligible']} eligible steps, of {counts['episodes']} episodes; "
        f"{current} steps in this phase"
    )
    return 0


def _require(config: ReplayConfig) -> None:
    if not config.out:
        raise ConfigError("out", "give the folder to write, for example --out runs/x/replay")
    if not config.current:
        raise ConfigError("current", "name the folder of the episodes of this phase")
    if config.episodes and not config.scores:
        raise ConfigError("scores", "name the side table of the episodes under the current actor; make it with `mira score`")
    if config.lowest > config.highest:
        raise ConfigError("lowest", f"{config.lowest} is higher than highest, {config.highest}")


def _made_from(config: ReplayConfig, current: int, reader: ShardReader | None, tables: Sequence[SideTable]) -> dict[str, Any]:
    """The inputs and settings that determine the selection. Folders are identified by their content."""
    return {
        "shards": list(reader.sha256) if reader else [],
        "actor": sorted({made.fingerprint for table in tables for made in table.made_by}),
        "current_steps": current,
        **{key: getattr(config, key) for key in ("lowest", "highest", "most", "first_per_task", "seed")},
    }


def _exists(out: Path, made_from: dict[str, Any]) -> bool:
    """Whether `out` is a complete selection from the same inputs. Raises UserError if it contains anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / REPLAY).exists():
        raise UserError(f"{out}: exists and is not a replay; choose another out")
    found = read_json(out / REPLAY, "remove the folder and run the same command again").get("made_from")
    now = parse_json(to_json(made_from))
    if not isinstance(found, dict) or found != now:
        known = found if isinstance(found, dict) else {}
        changed = ", ".join(key for key in {**known, **now} if known.get(key) != now.get(key))
        raise UserError(f"{out}: was made from other inputs ({changed}); choose another out, or remove this one")
    selected_steps(ShardReader(out), [SideTable.read(out / SELECTION)])
    return True


def _sound_steps(reader: ShardReader) -> int:
    """The number of steps of episodes without an infrastructure error."""
    return int(read_labels(reader).sound.sum())


def eligible_steps(reader: ShardReader, tables: Sequence[SideTable], config: ReplayConfig) -> np.ndarray:
    """bool [N]: the steps of successes whose perplexity is in the bounds, by default of the first success of each task.

    Raises:
        UserError: a table was made for other shards, or the tables are by different actors.
    """
    check(tables, reader.sha256)
    if len({made.fingerprint for table in tables for made in table.made_by if "log_prob" in made.columns}) > 1:
        raise UserError("scores: the tables are by different actors; score all episodes with the current one (`mira score`)")
    labels = read_labels(reader)
    log_prob, tokens = (column(labels, tables, name) for name in COLUMNS)
    perplexities = replay.perplexity(log_prob, np.maximum(tokens, 1))
    eligible = labels.sound & replay.keep_by_perplexity(labels.success, perplexities, config.lowest, config.highest)
    return eligible & _of_first_success(labels) if config.first_per_task else eligible


def _of_first_success(labels: StepLabels) -> np.ndarray:
    """bool [N]: whether the step belongs to the first success of its task."""
    first: dict[int, str] = {}
    for j in np.flatnonzero(labels.success & labels.sound):
        first.setdefault(int(labels.task[j]), labels.ids[j])
    return np.array([first.get(int(task)) == name for task, name in zip(labels.task, labels.ids, strict=True)], bool)


def _write(
    folder: Path, reader: ShardReader | None, tables: Sequence[SideTable], eligible: np.ndarray, selected: np.ndarray
) -> dict[str, Any]:
    """Writes shard and tables. Returns the counts."""
    keys: list[tuple[str, int]] = []
    keep: list[bool] = []

    def chosen() -> Iterator[Trajectory]:
        start = 0
        for trajectory in reader or ():
            steps = selected[start : start + len(trajectory.steps)]
            start += len(trajectory.steps)
            if steps.any():
                keys.extend((trajectory.id, number) for number in range(len(steps)))
                keep.extend(steps.tolist())
                yield trajectory

    write_shard(folder / SHARD, chosen())
    shards = ShardReader(folder).sha256
    ids, steps = [key[0] for key in keys], np.array([key[1] for key in keys], np.int32)
    SideTable(ids, steps, {"keep": np.array(keep, np.float32)}, (), shards).write(folder / SELECTION)
    if tables:
        made_by = [made for table in tables for made in table.made_by if set(made.columns) == set(COLUMNS)]
        values = {name: _lookup(tables, name, keys) for name in COLUMNS}
        scored = [table for table in tables if set(COLUMNS) <= set(table.columns)]
        names = set.intersection(*(set(table.token_columns) for table in scored))
        tokens = {name: tokens_of(scored, name, keys) for name in sorted(names)}
        SideTable(ids, steps, values, made_by[:1], shards, token_columns=tokens).write(folder / REFERENCE)
    return {"eligible": int(eligible.sum()), "selected": int(selected.sum()), "episodes": len(set(ids)), "steps": len(keys)}


def _lookup(tables: Sequence[SideTable], name: str, keys: list[tuple[str, int]]) -> np.ndarray:
    known: dict[tuple[str, int], float] = {}
    for table in tables:
        if name in table.columns:
            known.update(zip(zip(table.ids, table.steps.tolist(), strict=True), table.columns[name].tolist(), strict=True))
    return np.array([known[key] for key in keys], np.float32)


COMMAND = commands.Command("replay", main, ReplayConfig, __doc__, flags=("out",))

if __name__ == "__main__":
    sys.exit(COMMAND.run())
