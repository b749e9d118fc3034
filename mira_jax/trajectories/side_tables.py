"""Side tables: numbers per step, or per response token, computed by models (V, P, reference log-probabilities), with their provenance."""

import dataclasses
import io
import itertools
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mira_jax.errors import UserError
from mira_jax.files import now, write_atomically
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.token_columns import TokenColumn, starts_of

REMEDY = "score these episodes again (`mira score`)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """The inputs that produced some of a table's columns. Columns with equal provenance are equal."""

    columns: tuple[str, ...]
    checkpoint: str
    """The model's folder, and the step if it is a run. Meant for people: weights are compared by their fingerprint."""
    fingerprint: str
    """Fingerprint of the weights. For a run with adapters, fingerprint of the adapters."""
    base: str = ""
    """Fingerprint of the base weights that the adapters were trained with."""
    prompt: PromptConfig
    tokenizer: str
    """SHA-256 of the tokenizer's file."""
    dtype: str
    """Dtype of activations."""
    param_dtype: str
    """Dtype of parameters."""
    precision: str
    """Precision of float32 matrix products."""
    fold: str = ""
    """Cross-fitting: the fold of tasks that the model has not seen and was used for, such as "0 of 4". Empty: all tasks."""
    alternatives: int = 0
    """Number of likeliest tokens stored with each response token."""

    def difference(self, other: "Provenance") -> str:
        """Describes how `other` differs in the inputs that affect the numbers: "" or, for example, "dtype float32, not bfloat16"."""
        mine, theirs = _flat(self), _flat(other)
        return "; ".join(f"{name} {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name])


def _folds_of_one(one: Provenance, other: Provenance) -> bool:
    """Whether the two models scored different folds of the same division of tasks."""
    return one.fold != other.fold and one.fold.partition(" of ")[2] == other.fold.partition(" of ")[2] != ""


def _flat(provenance: Provenance) -> dict[str, Any]:
    tree = dataclasses.asdict(provenance)
    prompt = {f"prompt.{name}": value for name, value in tree.pop("prompt").items()}
    named = {"columns": ", ".join(tree.pop("columns")), **{name: short(value) for name, value in tree.items() if name != "checkpoint"}}
    return {**named, **prompt}


def short(value: Any) -> Any:
    """Shortens a hash for messages."""
    return value[:12] if isinstance(value, str) else value


class SideTable:
    """Columns with rows identified by (trajectory id, step)."""

    def __init__(
        self,
        ids: Sequence[str],
        steps: np.ndarray,
        columns: Mapping[str, np.ndarray],
        made_by: Sequence[Provenance] = (),
        shards: Sequence[str] = (),
        source: str = "side table",
        quality: Mapping[str, Any] | None = None,
        token_columns: Mapping[str, TokenColumn] | None = None,
    ):
        """
        Args:
            ids, steps: the key of each row.
            columns: float[rows] each.
            made_by: one entry per model. Empty for tables from older versions.
            shards: SHA-256 of each shard that was scored.
            source: the name of the table in messages.
            quality: measures of the columns of critics, by `mira_jax.recipes.quality`.
            token_columns: numbers per response token, with an entry for each row.
        """
        self.ids, self.steps, self.columns = (
            list(ids),
            np.asarray(steps, np.int32),
            {name: np.asarray(column, np.float32) for name, column in columns.items()},
        )
        self.made_by, self.shards, self.source, self.quality = tuple(made_by), tuple(shards), source, dict(quality or {})
        for name, column in self.columns.items():
            if column.shape != (len(self.ids),):
                raise ValueError(f"column {name}: shape {column.shape}, expected ({len(self.ids)},)")
        self.token_columns = dict(token_columns or {})
        for name, tokens in self.token_columns.items():
            if len(tokens.starts) != len(self.ids) + 1:
                raise ValueError(f"token column {name}: {len(tokens.starts) - 1} steps, expected {len(self.ids)}")
        self.used: set[str] = set()
        """The columns that a recipe has read."""
        self._rows = {key: row for row, key in enumerate(zip(self.ids, self.steps.tolist(), strict=True))}
        if len(self._rows) != len(self.ids):
            raise ValueError("two rows have the same trajectory id and step")

    def __len__(self) -> int:
        return len(self.ids)

    def lookup(self, column: str, trajectory_id: str, step: int) -> float:
        """Raises UserError if the table has no such column or row."""
        if column not in self.columns:
            raise UserError(f"{self.source}: no column {column}; it has {', '.join(self.columns)}")
        row = self._rows.get((trajectory_id, step))
        if row is None:
            raise UserError(f"{self.source}: no row for step {step} of trajectory {trajectory_id}; score again (`mira score`)")
        return float(self.columns[column][row])

    def write(self, path: str | Path) -> None:
        """Atomically writes an .npz without pickled objects."""
        made_by = [msgspec.to_builtins(made) for made in self.made_by]
        head = {"created": now(), "columns": list(self.columns), "made_by": made_by, "shards": self.shards, "quality": self.quality}
        head["token_columns"] = list(self.token_columns)
        buffer = io.BytesIO()
        # Any, because an array may not be unpacked into the flag `allow_pickle` that newer NumPy also takes.
        arrays: dict[str, Any] = {f"column:{name}": column for name, column in self.columns.items()}
        for name, tokens in self.token_columns.items():
            arrays |= {f"tokens:{name}": tokens.values, f"starts:{name}": tokens.starts}
        np.savez_compressed(buffer, head=np.array(json.dumps(head)), ids=np.array(self.ids, np.str_), steps=self.steps, **arrays)
        write_atomically(Path(path), buffer.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> "SideTable":
        """Raises UserError for a missing or damaged file."""
        try:
            with np.load(path, allow_pickle=False) as data:
                head = json.loads(str(data["head"]))
                columns = {name: data[f"column:{name}"] for name in head["columns"]}
                tokens = {name: TokenColumn(data[f"tokens:{name}"], data[f"starts:{name}"]) for name in head.get("token_columns", [])}
                made_by = msgspec.convert(head.get("made_by", []), list[Provenance])
                ids = [str(item) for item in data["ids"]]
                return cls(ids, data["steps"], columns, made_by, head.get("shards", []), str(path), head.get("quality"), tokens)
        except FileNotFoundError:
            raise UserError(f"{path}: no such side table; make it with `mira score`") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a side table: {error}") from None


def check(tables: Sequence[SideTable], shards: Sequence[str], prompt: PromptConfig | None = None, tokenizer: str = "") -> None:
    """Refuses tables that were computed for other shards, prompts or tokenizers than the reader uses.

    Args:
        shards: SHA-256 of every shard that will be read. The tables of each column together must cover all of them.
        prompt: the prompt that the numbers must have been computed with, except that critics may see subgoals. Default: any.
        tokenizer: SHA-256 of the tokenizer that they must have been computed with. Default: any.

    Raises:
        UserError: a table differs or has no provenance, or two tables have a column for the same shard by different models.
    """
    for table in tables:
        if not table.made_by:
            raise UserError(f"{table.source}: does not record which models computed it (it was written by an older version); {REMEDY}")
        for made in table.made_by:
            wanted = dataclasses.replace(made, prompt=prompt or made.prompt, tokenizer=tokenizer or made.tokenizer)
            if "log_prob" not in made.columns:  # critics may see subgoals
                wanted = dataclasses.replace(wanted, prompt=dataclasses.replace(wanted.prompt, subgoals=made.prompt.subgoals))
            if difference := made.difference(wanted):
                raise UserError(f"{table.source}: computed with other settings than are used here ({difference}); {REMEDY}")
    by_column: dict[str, list[tuple[SideTable, Provenance]]] = {}
    for table in tables:
        for made in table.made_by:
            for column in made.columns:
                by_column.setdefault(column, []).append((table, made))
    for column, makers in by_column.items():
        sources = ", ".join(table.source for table, _ in makers)
        if set(shards) - {shard for table, _ in makers for shard in table.shards}:
            raise UserError(f"{sources}: {column} was not computed on these shards, or they have changed since; {REMEDY}")
        for (one, made), (other, by) in itertools.combinations(makers, 2):
            if one is other:  # an ensemble: `mira score` computed their mean
                continue
            if set(one.shards) & set(other.shards) and made.fingerprint != by.fingerprint and not _folds_of_one(made, by):
                raise UserError(f"{one.source} and {other.source}: both have {column} of the same episodes, by different models; name one")


class MissingRow(KeyError):
    """No table has a row for a step."""

    def __init__(self, key: tuple[str, int]):
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"step {self.key[1]} of trajectory {self.key[0]}"


def tokens_of(tables: Sequence[SideTable], name: str, keys: Sequence[tuple[str, int] | None]) -> TokenColumn:
    """The token column `name` of tables that all have it, for the steps `keys`, empty where None. Of tables with different widths, the
    smallest is kept.

    Raises:
        MissingRow: no table has a step.
    """
    rows: dict[tuple[str, int], int] = {}
    before = 0
    for table in tables:
        rows.update((key, before + row) for row, key in enumerate(zip(table.ids, table.steps.tolist(), strict=True)))
        before += len(table)
    for key in keys:
        if key is not None and key not in rows:
            raise MissingRow(key)
    parts = [table.token_columns[name] for table in tables]
    width = min(part.values.shape[1] for part in parts)
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    joined = TokenColumn(np.concatenate([part.values[:, :width] for part in parts]), starts_of(lengths))
    return joined.take(np.array([-1 if key is None else rows[key] for key in keys], np.int64))


def selected_steps(reader: ShardReader, selections: Sequence[SideTable]) -> np.ndarray:
    """bool [N]: false for the steps that a selection leaves out (its column `keep` is 0). Steps of other episodes are true.

    Raises:
        UserError: a table is no selection, or was made from shards that are not read or have changed.
    """
    starts = dict(zip(reader.ids(), np.cumsum([0, *reader.steps_per_record[:-1]]).tolist(), strict=True)) if len(reader) else {}
    keep_N = np.ones(int(reader.steps_per_record.sum()), bool)
    for table in selections:
        if "keep" not in table.columns:
            raise UserError(f"{table.source}: no selection; make one with `mira replay`")
        if set(table.shards) - set(reader.sha256):
            raise UserError(
                f"{table.source}: selects steps of shards that are not in the folders read here, or have changed since; "
                "name the folder that it was written to, or make it again (`mira replay`)"
            )
        for name, step, keep in zip(table.ids, table.steps.tolist(), table.columns["keep"].tolist(), strict=True):
            keep_N[starts[name] + step] = keep > 0
    return keep_N
