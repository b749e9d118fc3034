"""AdamW and Adafactor with a schedule, global-norm clipping, and configurable precision."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from mira_jax.config import Count, Fraction, NonNegative, Positive, ProperFraction
from mira_jax.training.precision import mixed_precision

DType = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    name: Literal["adamw", "adafactor"] = "adamw"
    """adamw: Loshchilov and Hutter, arXiv 1711.05101. adafactor: Shazeer and Stern, arXiv 1804.04235, without momentum and with
    the learning rate below unscaled. For the second moment of a matrix, adafactor stores only row and column means."""
    learning_rate: NonNegative = 1e-5
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the schedule from the peak to `end`, after the warm-up."""
    warmup: Fraction = 0.1
    """Share of the updates in which the learning rate rises linearly to its peak."""
    end: Fraction = 0.0
    """Final learning rate of linear and cosine, as a share of the peak."""
    beta1: ProperFraction = 0.9
    """Decay rate of the mean of gradients (adamw)."""
    beta2: ProperFraction = 0.999
    """Decay rate of the mean of squared gradients (adamw)."""
    epsilon: Positive = 1e-8
    """Added to the root of the mean of squared gradients (adamw)."""
    weight_decay: NonNegative = 0.0
    """Weight decay of matrices. Norm scales and biases do not decay."""
    clip: NonNegative = 1.0
    """Maximum global norm of the gradient. 0: no clipping."""
    accumulate: Count = 1
    """Number of parts that each batch is split into. The device computes the parts one after another. The update is that of the
    whole batch."""
    sum_dtype: DType = "float32"
    """Dtype in which gradients of bfloat16 parameters are summed over the parts of `accumulate`. bfloat16 uses 2 bytes less per
    parameter than float32, and rounds the sum after each part. Gradients of float32 parameters are summed in float32."""
    state_dtype: DType = "float32"
    """Dtype of the stored moments: float32, or bfloat16 with stochastic rounding. They are computed in float32."""
    master: bool = False
    """With `model.param_dtype: bfloat16`: also store the parameters in float32, and update those. Without it, the bfloat16
    parameters are updated directly with stochastic rounding."""


def learning_rate(config: OptimizerConfig, updates: int) -> Callable[[jax.Array], jax.Array]:
    """The learning rate of update i = 0, 1, ... of `updates`.

    With w = round(warmup * updates) and peak p: p (i + 1) / w for i < w; then, at f = (i - w) / (updates - w),
    p, p (1 - (1 - end) f), or p (end + (1 - end) (1 + cos(pi f)) / 2).
    """
    warm = round(config.warmup * updates)

    def rate(count: jax.Array) -> jax.Array:
        f = jnp.clip((count - warm) / max(1, updates - warm), 0.0, 1.0)
        shape = {
            "constant": jnp.ones_like(f),
            "linear": 1 - (1 - config.end) * f,
            "cosine": config.end + (1 - config.end) * 0.5 * (1 + jnp.cos(jnp.pi * f)),
        }[config.schedule]
        return config.learning_rate * jnp.where(count < warm, (count + 1) / max(1, warm), shape)

    return rate


def make_optimizer(config: OptimizerConfig, updates: int) -> optax.GradientTransformation:
    """Clipping, direction, decoupled weight decay and schedule, in this order, in float32."""
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    if config.name == "adamw":
        parts.append(optax.scale_by_adam(config.beta1, config.beta2, config.epsilon))
    else:
        parts += [optax.scale_by_factored_rms(), clip_by_matrix_rms(1.0)]
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decays))
    parts.append(optax.scale_by_learning_rate(learning_rate(config, updates)))
    return mixed_precision(optax.chain(*parts), config.state_dtype, config.master)


def clip_by_matrix_rms(threshold: float) -> optax.GradientTransformation:
    """Scales the update of each matrix or vector down to a root mean square of at most `threshold`: section 6 of arXiv
    1804.04235.

    A scanned parameter contains one matrix per group of layers.
    """

    def clip(path: tuple, update: jax.Array) -> jax.Array:
        axes = range(1 if "groups" in _names(path) else 0, update.ndim)
        rms = jnp.sqrt(jnp.mean(jnp.square(update), axis=tuple(axes), keepdims=True))
        return update / jnp.maximum(1.0, rms / threshold)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(clip, updates))


def decays(params: Any) -> Any:
    """True for matrices, false for norm scales and biases, by name."""

    def of(path: tuple, _) -> bool:
        return not any(name == "scale" or name.endswith("bias") for name in _names(path))

    return jax.tree_util.tree_map_with_path(of, params)


def _names(path: tuple) -> list[str]:
    return [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
