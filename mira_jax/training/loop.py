"""The training loop: batches in, updates done, metrics and checkpoints out."""

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

FINITE = ("loss", "gradient_norm")
"""Metrics, those of the holdout included, that end the run when they are not finite."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When things happen, in updates."""

    updates: int
    log_every: int
    checkpoint_every: int
    evaluate_at: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class LoopResult:
    state: TrainState
    step: int
    finished: bool
    """False: SIGTERM or SIGINT came first."""
    metrics: dict[str, float]
    """Of the last update, by whichever process did it."""
    seconds: float
    """Of training, earlier processes of the same run included."""


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
    """Updates `state` from update `step` to `config.updates`.

    The device is never waited for but every `log_every` updates, when the metrics of all updates since are fetched.

    Args:
        update: as `mira_jax.training.step.make_step` makes it.
        data: batches, from number `step` on. Its state goes into the checkpoints.
        place: puts a batch where `update` wants it.
        writer: None: another process writes the metrics, and shows the progress.
        evaluate: holdout metrics of parameters, called at `config.evaluate_at`.

    Raises:
        Diverged: a loss, a gradient norm, a parameter or a moment is not finite. The last checkpoint is from before that.
    """
    waiting: list[tuple[int, dict[str, jax.Array]]] = []
    last = writer.last if writer else {}
    began = since = time.monotonic()
    before = writer.seconds if writer else 0.0

    def report(extra: dict[str, float] | None = None) -> None:
        nonlocal since, last
        fetched = [(number, {name: float(value) for name, value in values.items()}) for number, values in jax.device_get(waiting)]
        waiting.clear()
        if not fetched:
            return
        now = time.monotonic()
        speed = sum(values["tokens"] for _, values in fetched) / max(now - since, 1e-9)
        since = now
        for number, values in fetched:
            values |= {"tokens_per_second": round(speed, 1), "seconds": round(before + now - began, 3)}
            if extra and number == fetched[-1][0]:
                values |= extra
            if writer:
                writer.write(number, values)
            last = values
        if writer:
            writer.flush()
        for number, values in fetched:
            for name, value in values.items():
                if name.rpartition("/")[2] in FINITE and not math.isfinite(value):
                    raise _diverged(number, f"{name} is {value}", checkpoints)
        bar.note(f"loss {last['loss']:.4f}, {speed:,.0f} tokens/s")

    def save() -> None:
        # The metrics are those of before the update, the parameters those of after it.
        if not all_finite(state):
            raise _diverged(step, "the parameters or the optimizer's state are not finite", checkpoints)
        checkpoints.save(step, state, data)

    with (
        _closed_if_diverged(checkpoints),
        StopSignal() as stop,
        Progress("train", "updates", config.updates, step, shown=writer is not None) as bar,
    ):
        while step < config.updates and not stop.asked(step):
            state, values = update(state, place(next(data)))
            step += 1
            waiting.append((step, values))
            bar.update()
            evaluating = evaluate is not None and step in config.evaluate_at
            saving = step % config.checkpoint_every == 0
            if evaluating or saving or step % config.log_every == 0:
                report(evaluate(state.params) if evaluating else None)
            if saving:
                save()
        report()
        save()
        checkpoints.close()
    return LoopResult(state, step, step >= config.updates, last, before + time.monotonic() - began)


class Diverged(UserError):
    """A number that training rests on is not finite any more."""


def _diverged(step: int, what: str, checkpoints: Checkpoints) -> Diverged:
    kept = f"the checkpoint of update {checkpoints.latest} is kept" if checkpoints.latest else "there is no checkpoint yet"
    way = "from that checkpoint, by init_from, or " if checkpoints.latest else ""
    return Diverged(
        f"update {step}: {what}; training stops, and {kept}. Look at the data, or begin in another out with a lower "
        f"optimizer.learning_rate, {way}from the start"
    )


@contextlib.contextmanager
def _closed_if_diverged(checkpoints: Checkpoints) -> Iterator[None]:
    """The checkpoint that is being written is the last good one."""
    try:
        yield
    except Diverged:
        checkpoints.close()
        raise


def mean_over(
    evaluation: Callable[[Params, Any], dict[str, Mean]], batches: Sequence[Mapping[str, np.ndarray]], place: Callable, prefix: str
) -> Callable[[Params], dict[str, float]]:
    """Holdout metrics: the recipe's means over all `batches`, under `prefix`."""

    def evaluate(params: Params) -> dict[str, float]:
        parts = jax.device_get([evaluation(params, place(batches[index])) for index in range(len(batches))])
        sums = {name: [sum(values) for values in zip(*(part[name] for part in parts), strict=True)] for name in parts[0]}
        return {prefix + name: float(total / max(weight, 1e-9)) for name, (total, weight) in sums.items()}

    return evaluate
