"""Metrics that are averaged over batches and devices, and the files they are written to."""

from pathlib import Path
from typing import Any, NamedTuple

from jax import Array

from mira_jax.errors import UserError
from mira_jax.files import parse_json, to_json, write_atomically


class Mean(NamedTuple):
    """A weighted mean, stored as two sums, so that means over parts can be combined exactly."""

    total: Array
    """Scalar: the weighted sum."""
    weight: Array
    """Scalar: the sum of the weights."""


class MetricsWriter:
    """Writes one JSON line per update to `metrics.jsonl`, and the same numbers to TensorBoard."""

    def __init__(self, folder: str | Path, step: int = 0):
        """Continues after update `step`. Removes later lines, which a run that was killed after its last checkpoint leaves behind."""
        from tensorboardX import SummaryWriter

        folder = Path(folder)
        self._path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self._path) if line["step"] <= step]
        self.seconds = max((line.get("seconds", 0.0) for line in kept), default=0.0)
        """Training time in seconds, from the last remaining line."""
        self.last = {name: value for name, value in kept[-1].items() if name != "step"} if kept else {}
        """Values of the last remaining line."""
        write_atomically(self._path, "".join(map(to_json, kept)).encode())
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1, flush_secs=30)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds the line of one update. nan and inf are written as null."""
        self._file.write(to_json({"step": step, **values}))
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`. A truncated last line is ignored.

    Raises:
        UserError: another line is not a JSON object with an integer `step`.
    """
    path = Path(path)
    lines: list[dict[str, Any]] = []
    texts = path.read_bytes().splitlines() if path.exists() else []
    for number, text in enumerate(texts, 1):
        try:
            line = parse_json(text)
            if not isinstance(line, dict) or not isinstance(line.get("step"), int):
                raise ValueError("not an object with a step")
        except ValueError as error:
            if number == len(texts):
                break
            raise UserError(f"{path}: line {number} is damaged ({error}); remove that line") from None
        lines.append(line)
    return lines
