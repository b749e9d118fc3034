"""Numbers per step that a model computed: V, P, reference log-probabilities. Kept beside the shards."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mira_jax.errors import UserError
from mira_jax.files import write_atomically
from mira_jax.trajectories.shards import now


class SideTable:
    """Columns keyed by (trajectory id, step), with the id of the checkpoint that made them."""

    def __init__(
        self, ids: Sequence[str], steps: np.ndarray, columns: Mapping[str, np.ndarray], checkpoint: str, source: str = "side table"
    ):
        """`ids` and `steps` name the rows; every column is float[rows]."""
        self.ids, self.steps, self.columns = (
            list(ids),
            np.asarray(steps, np.int32),
            {name: np.asarray(column, np.float32) for name, column in columns.items()},
        )
        self.checkpoint, self.source = checkpoint, source
        for name, column in self.columns.items():
            if column.shape != (len(self.ids),):
                raise ValueError(f"column {name}: shape {column.shape}, expected ({len(self.ids)},)")
        self._rows = {key: row for row, key in enumerate(zip(self.ids, self.steps.tolist(), strict=True))}
        if len(self._rows) != len(self.ids):
            raise ValueError("two rows have the same trajectory id and step")

    def __len__(self) -> int:
        return len(self.ids)

    def lookup(self, column: str, trajectory_id: str, step: int) -> float:
        """Raises UserError when the table has no such column or row."""
        if column not in self.columns:
            raise UserError(f"{self.source}: no column {column}; it has {', '.join(self.columns)}")
        row = self._rows.get((trajectory_id, step))
        if row is None:
            raise UserError(
                f"{self.source}: no row for step {step} of trajectory {trajectory_id}; score again (`python -m mira_jax.score`)"
            )
        return float(self.columns[column][row])

    def write(self, path: str | Path) -> None:
        """Writes an .npz without pickled objects, all at once."""
        head = json.dumps({"checkpoint": self.checkpoint, "created": now(), "columns": list(self.columns)})
        buffer = io.BytesIO()
        arrays = {f"column:{name}": column for name, column in self.columns.items()}
        np.savez_compressed(buffer, head=np.array(head), ids=np.array(self.ids, np.str_), steps=self.steps, **arrays)
        write_atomically(Path(path), buffer.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> "SideTable":
        """Raises UserError for a missing or damaged file."""
        try:
            with np.load(path, allow_pickle=False) as data:
                head = json.loads(str(data["head"]))
                columns = {name: data[f"column:{name}"] for name in head["columns"]}
                return cls([str(item) for item in data["ids"]], data["steps"], columns, head["checkpoint"], str(path))
        except FileNotFoundError:
            raise UserError(f"{path}: no such side table; make it with `python -m mira_jax.score`") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a side table: {error}") from None
