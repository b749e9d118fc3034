"""The training loop: takes batches, applies updates, and writes metrics and checkpoints."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mira_jax.errors import UserError
from mira_jax.progress import Progress
from mira_jax.training.checkpoint import Checkpoints
from mira_jax.training.metrics import Mean, MetricsWriter
from mira_jax.training.processes import StopSignal
from mira_jax.training.state import Params, TrainState, all_finite

HOLDOUT = "holdout/"
HOLDOUT_LOSS = f"{HOLDOUT}loss"
FINITE = ("loss", "gradient_norm")
"""Metrics that end the run if they are not finite, including their holdout versions."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Intervals and limits of the loop, in updates."""

    updates: int
    log_every: int
    checkpoint_every: int
    evaluate_at: Sequence[int] = ()
    patience: int | None = None
    """Early stopping: the loop ends after this number of evaluations without a lower holdout loss. Checkpoints are then written
    only where the holdout loss is lower than ever before, so the last one is the best."""


@dataclasses.dataclass(frozen=True)
class LoopResult:
    state: TrainState
    step: int
    """The update that the run ends with. With early stopping it is that of the lowest holdout loss."""
    finished: bool
    """False: the run was stopped by SIGTERM or SIGINT."""
    metrics: dict[str, float]
    """Metrics of the last update, also if another process of the same run applied it."""
    seconds: float
    """Seconds of training, including earlier processes of the same run."""


def train(
    state: TrainState,
    step: int,
    update: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    data: Iterator[Mapping[str, np.ndarray]],
    place: Callable[[Mapping[str, np.ndarray]], Any],
    config: LoopConfig,
    checkpoints: Checkpoints,
    writer: MetricsWriter | None,
    evaluate: Callable[[Params], dict[str, float]] | None = None,
) -> LoopResult:
    """Applies updates to `state` from update `step` to `config.updates`.

    The loop waits for the device only every `log_every` updates, when it fetches the metrics of all updates since the last
    fetch.

    Args:
        update: a function made by `mira_jax.training.step.make_step`.
        data: batches, starting at number `step`. Its position is saved in the checkpoints.
        place: transfers a batch to where `update` needs it.
        writer: None if another process writes the metrics and shows the progress.
        evaluate: computes holdout metrics from parameters. Called at `config.evaluate_at`, and required by `config.patience`.

    Raises:
        Diverged: a loss, a gradient norm, a parameter or a moment is not finite. The last checkpoint is older than this.
    """
    early = None
    if config.patience is not None:
        if evaluate is None:
            raise UserError("early_stopping: there is no holdout to measure; set data.holdout, or folds of the recipe")
        early = _EarlyStopping(config.patience, evaluate(state.params)[HOLDOUT_LOSS] if step else math.inf, step)

    def save() -> None:
        # The metrics are from before the update, so the new parameters need their own check.
        if not all_finite(state):
            raise _diverged(step, "the parameters or the optimizer's state are not finite", checkpoints)
        checkpoints.save(step, state, data)

    with (
        _closed_if_diverged(checkpoints),
        StopSignal() as stop,
        Progress("train", "updates", config.updates, step, shown=writer is not None) as bar,
    ):
        metrics = _Metrics(writer, bar, checkpoints)
        while step < config.updates and not stop.asked(step) and not (early and early.over):
            state, values = update(state, place(next(data)))
            step += 1
            metrics.add(step, values)
            evaluating = evaluate is not None and step in config.evaluate_at
            saving = step % config.checkpoint_every == 0 and not early
            measured = evaluate(state.params) if evaluating else None
            if evaluating or saving or step % config.log_every == 0:
                metrics.fetch(measured)
            if early and measured:
                saving = early.improved(measured[HOLDOUT_LOSS], step, metrics.last)
            if saving:
                save()
        metrics.fetch()
        finished = step >= config.updates or bool(early and early.over)
        if not early:
            save()
        checkpoints.close()
    last = (early and early.metrics) or metrics.last
    return LoopResult(state, early.step if early else step, finished, last, metrics.seconds)


class _Metrics:
    """The metrics of updates: fetched from the device, checked, and written."""

    def __init__(self, writer: MetricsWriter | None, bar: Progress, checkpoints: Checkpoints):
        self._writer, self._bar, self._checkpoints = writer, bar, checkpoints
        self._waiting: list[tuple[int, dict[str, jax.Array]]] = []
        self._began = self._since = time.monotonic()
        self._before = writer.seconds if writer else 0.0
        self.last = writer.last if writer else {}
        """Metrics of the last update fetched, also if another process of the same run applied it."""

    @property
    def seconds(self) -> float:
        """Seconds of training, including earlier processes of the same run."""
        return self._before + time.monotonic() - self._began

    def add(self, step: int, values: dict[str, jax.Array]) -> None:
        """Adds the metrics of an update, which are on the device."""
        self._waiting.append((step, values))
        self._bar.update()

    def fetch(self, extra: dict[str, float] | None = None) -> None:
        """Fetches the metrics of all updates since the last fetch. `extra` is added to those of the last update.

        Raises:
            Diverged: a loss or a gradient norm is not finite.
        """
        fetched = [(step, {name: float(value) for name, value in values.items()}) for step, values in jax.device_get(self._waiting)]
        self._waiting.clear()
        if not fetched:
            return
        now = time.monotonic()
        speed = sum(values["tokens"] for _, values in fetched) / max(now - self._since, 1e-9)
        self._since = now
        for step, values in fetched:
            values |= {"tokens_per_second": round(speed, 1), "seconds": round(self._before + now - self._began, 3)}
            if extra and step == fetched[-1][0]:
                values |= extra
            if self._writer:
                self._writer.write(step, values)
            self.last = values
        if self._writer:
            self._writer.flush()
        for step, values in fetched:
            for name, value in values.items():
                if name.rpartition("/")[2] in FINITE and not math.isfinite(value):
                    raise _diverged(step, f"{name} is {value}", self._checkpoints)
        self._bar.note(f"loss {self.last['loss']:.4f}, {speed:,.0f} tokens/s")


@dataclasses.dataclass
class _EarlyStopping:
    """The update with the lowest holdout loss so far, and how many evaluations have passed since."""

    patience: int
    lowest: float
    step: int
    metrics: dict[str, float] | None = None
    passed: int = 0

    @property
    def over(self) -> bool:
        return self.passed >= self.patience

    def improved(self, loss: float, step: int, metrics: dict[str, float]) -> bool:
        """Counts an evaluation. Returns whether its loss is the lowest so far."""
        if loss >= self.lowest:
            self.passed += 1
            return False
        self.lowest, self.step, self.metrics, self.passed = loss, step, dict(metrics), 0
        return True


class Diverged(UserError):
    """A value that training depends on is no longer finite."""


def _diverged(step: int, what: str, checkpoints: Checkpoints) -> Diverged:
    kept = f"the checkpoint of update {checkpoints.latest} is kept" if checkpoints.latest else "there is no checkpoint yet"
    way = "from that checkpoint, by init_from, or " if checkpoints.latest else ""
    return Diverged(
        f"update {step}: {what}; training stops, and {kept}. Check the data, or start a new run, in another out, with a lower "
        f"optimizer.learning_rate, {way}from the start"
    )


@contextlib.contextmanager
def _closed_if_diverged(checkpoints: Checkpoints) -> Iterator[None]:
    """On divergence, completes the checkpoint that is being written, because it is the last good one."""
    try:
        yield
    except Diverged:
        checkpoints.close()
        raise


def mean_over(
    evaluation: Callable[[Params, Any], dict[str, Mean]], batches: Sequence[Mapping[str, np.ndarray]], place: Callable, prefix: str
) -> Callable[[Params], dict[str, float]]:
    """Computes holdout metrics: the means of the recipe's metrics over all `batches`, with `prefix`."""

    def evaluate(params: Params) -> dict[str, float]:
        parts = jax.device_get([evaluation(params, place(batches[index])) for index in range(len(batches))])
        sums = {name: [sum(values) for values in zip(*(part[name] for part in parts), strict=True)] for name in parts[0]}
        return {prefix + name: float(total / max(weight, 1e-9)) for name, (total, weight) in sums.items()}

    return evaluate
