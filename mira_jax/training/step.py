"""One update: the gradient of a recipe's loss, optionally accumulated over parts, and the optimizer."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from mira_jax.training.metrics import Mean
from mira_jax.training.state import Params, Skeleton, TrainState

Metrics = dict[str, Array]
Loss = Callable[[nnx.Module, Mapping[str, Array]], tuple[Mean, dict[str, Mean]]]
"""The type of `Recipe.loss`: model and batch to the loss and the metrics."""


def make_step(
    skeleton: Skeleton,
    loss_of: Loss,
    optimizer: optax.GradientTransformation,
    rate: Callable[[Array], Array],
    shardings: TrainState | None = None,
    sum_dtype: str = "float32",
) -> Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, Metrics]]:
    """(state, batch, frozen) -> (new state, metrics), jitted; the old state is donated.

    `frozen`: the parameters that are not trained, if there are any. They are unchanged and have no gradients. Arrays of
    `batch` have an axis of parts before the axis of rows (see `cut`). The gradient is that of (sum of the parts' totals) /
    (sum of their weights), which does not depend on the number of parts. `shardings`: the shardings of the state, which the
    step preserves. `sum_dtype`: `OptimizerConfig.sum_dtype`.
    """

    def total(params: Params, frozen: Params | None, part: Mapping[str, Array]) -> tuple[Array, tuple[Mean, dict[str, Mean]]]:
        loss, metrics = loss_of(skeleton.merge(params, frozen), part)
        return loss.total, (loss, metrics)

    gradient = jax.grad(total, has_aux=True)

    def step(state: TrainState, batch: Mapping[str, Array], frozen: Params | None = None) -> tuple[TrainState, Metrics]:
        parts = next(iter(batch.values())).shape[0]
        gradients, sums = gradient(state.params, frozen, jax.tree.map(lambda x: x[0], batch))
        if parts > 1:

            def add(carry: tuple, part: Mapping[str, Array]) -> tuple[tuple, None]:
                return jax.tree.map(_plus, carry, gradient(state.params, frozen, part)), None

            if sum_dtype == "float32":
                gradients = jax.tree.map(lambda g: g.astype(jnp.float32), gradients)
            (gradients, sums), _ = jax.lax.scan(add, (gradients, sums), jax.tree.map(lambda x: x[1:], batch))
        loss, metrics = sums
        gradients = jax.tree.map(lambda g: g.astype(jnp.float32) / jnp.maximum(loss.weight, 1e-9), gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        report = {"loss": _mean(loss), **{name: _mean(value) for name, value in metrics.items()}}
        report |= {"gradient_norm": optax.tree.norm(gradients), "learning_rate": rate(state.step)}
        report |= {"tokens": (batch["segment_ids"] > 0).sum(), "steps": batch["step_mask"].sum()}
        return TrainState(params, optimizer_state, state.step + 1), report

    # The metrics are replicated like the step number, because every process fetches them.
    return jax.jit(step, donate_argnums=0, out_shardings=None if shardings is None else (shardings, shardings.step))


def make_evaluation(skeleton: Skeleton, loss_of: Loss) -> Callable[[Params, Mapping[str, Array]], dict[str, Mean]]:
    """(params, batch with one part, frozen) -> loss and metrics as sums, jitted."""

    def evaluate(params: Params, batch: Mapping[str, Array], frozen: Params | None = None) -> dict[str, Mean]:
        loss, metrics = loss_of(skeleton.merge(params, frozen), jax.tree.map(lambda x: x[0], batch))
        return {"loss": loss, **metrics}

    return jax.jit(evaluate)


def cut(batch: Mapping[str, np.ndarray], parts: int) -> dict[str, np.ndarray]:
    """Splits the rows of a batch into `parts` of equal size, along a new first axis."""
    return {name: array.reshape(parts, array.shape[0] // parts, *array.shape[1:]) for name, array in batch.items()}


def _plus(total: Array, new: Array) -> Array:
    """Adds in float32, and returns the dtype of `total`."""
    return (total.astype(jnp.float32) + new.astype(jnp.float32)).astype(total.dtype)


def _mean(value: Mean) -> Array:
    return value.total / jnp.maximum(value.weight, 1e-9)
