"""AdamW with a schedule and global-norm clipping."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mira_jax.errors import UserError

SCHEDULES = ("constant", "linear", "cosine")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float = 1e-5
    """The peak."""
    schedule: str = "cosine"
    """constant, linear or cosine: the way from the peak to `end` after the warm-up."""
    warmup: float = 0.1
    """Share of the updates over which the rate rises linearly."""
    end: float = 0.0
    """Share of the peak that linear and cosine end at."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    """Of matrices; norm scales and biases do not decay."""
    clip: float = 1.0
    """The largest global norm of a gradient; 0 for none."""
    accumulate: int = 1
    """Cut each batch into this many parts, one after another on the device. The update is that of the whole batch."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UserError(f"optimizer.schedule: {self.schedule!r} is none of {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"optimizer.warmup: {self.warmup} is not a share between 0 and 1")
        if self.accumulate < 1:
            raise UserError(f"optimizer.accumulate: {self.accumulate} is less than 1")


def learning_rate(config: OptimizerConfig, updates: int) -> Callable[[jax.Array], jax.Array]:
    """The rate of update i = 0, 1, ... of `updates`.

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
    """Clip, Adam, decoupled weight decay, schedule: in this order."""
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    parts.append(adam)
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decays))
    parts.append(optax.scale_by_learning_rate(learning_rate(config, updates)))
    return optax.chain(*parts)


def decays(params: Any) -> Any:
    """True for matrices, false for norm scales and biases, by name."""

    def of(path: tuple, _) -> bool:
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        return not any(name == "scale" or name.endswith("bias") for name in names)

    return jax.tree_util.tree_map_with_path(of, params)
