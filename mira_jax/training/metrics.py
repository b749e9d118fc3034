"""Numbers that are averaged over batches and devices, and the files they are written to."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from jax import Array


class Mean(NamedTuple):
    """A weighted mean, kept as its two sums so that means over parts can be added exactly."""

    total: Array
    """Scalar: the weighted sum."""
    weight: Array
    """Scalar: the sum of the weights."""


class MetricsWriter:
    """One JSON line per update in `metrics.jsonl`, and the same numbers for TensorBoard."""

    def __init__(self, folder: str | Path, step: int = 0):
        """Goes on after update `step`: later lines, of a run that was killed after its last checkpoint, are cut off."""
        from tensorboardX import SummaryWriter

        folder = Path(folder)
        self._path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self._path) if line["step"] <= step]
        self.seconds = max((line.get("seconds", 0.0) for line in kept), default=0.0)
        """Of training time, by the last line that was kept."""
        self.last = {name: value for name, value in kept[-1].items() if name != "step"} if kept else {}
        """The values of the last line that was kept."""
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self._path)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1, flush_secs=30)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds the line of one update; nan and inf are written as null."""
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line that was cut short is left out."""
    path = Path(path)
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
