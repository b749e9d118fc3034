"""Compares the chosen kernels with the plain form of attention, on the accelerator that will run them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mira_jax.errors import ConfigError
from mira_jax.models import attention
from mira_jax.models.config import LOCAL, Gemma3Config
from mira_jax.models.kernels import sharded
from mira_jax.models.kernels.choose import Kernel, Kernels, Setting, choose_kernels

TOKENS = 1024
"""Length of the row that is compared."""
TOLERANCE = 0.02
"""Maximum relative error of the output and of each gradient. In bfloat16 about 0.005 is expected."""


def checked_kernels(setting: Setting, sizes: Gemma3Config, dtype: str, *, key: str = "model.attention") -> dict[str, Kernel]:
    """As `choose_kernels` for this process. Kernels other than XLA's are run once in a process, which takes some seconds.

    Raises:
        ConfigError: a named implementation cannot be used, or a kernel gives other results here than XLA.
    """
    kernels = choose_kernels(setting, sizes, dtype, key=key)
    require_right(kernels, sizes, dtype, key=key)
    return kernels


def require_right(kernels: Kernels, sizes: Gemma3Config, dtype: str, *, tokens: int = TOKENS, key: str = "model.attention") -> None:
    """Raises ConfigError if a kernel gives other outputs or gradients than XLA, for a packed row of random tokens."""
    for layer_type, kernel in kernels.items():
        if kernel.name in ("xla", "cudnn"):
            continue  # cudnn takes no packed rows.
        window = min(sizes.window, tokens // 4) if layer_type == LOCAL else None
        if not (error := _error(kernel, sizes, dtype, tokens, window)) <= TOLERANCE:
            kind = "local" if layer_type == LOCAL else "global"
            raise ConfigError(
                key, f"{kernel.name} gives wrong results on this machine (relative error {error:.2g} in {kind} layers); set xla"
            )


@functools.cache
def _error(kernel: Kernel, sizes: Gemma3Config, dtype: str, tokens: int, window: int | None) -> float:
    """The largest relative error of output and gradients, over three segments and padding."""
    index_T = jnp.arange(tokens)
    segment_ids = sum((index_T >= start).astype(jnp.int32) for start in (0, tokens // 3, tokens // 2))
    real = index_T < tokens - tokens // 10
    segment_ids = jnp.where(real, segment_ids, 0)[None]
    heads = sizes.query_heads, sizes.kv_heads, sizes.kv_heads, sizes.query_heads

    def both(attend: Any) -> Any:
        def run(q, k, v, probe):
            out, pullback = jax.vjp(lambda *a: attend(*a, segment_ids, window, sizes.head_dim**-0.5) * real[None, :, None, None], q, k, v)
            return out, *pullback(probe.astype(out.dtype))

        return jax.jit(run)

    with jax.default_device(jax.local_devices()[0]):
        keys = jax.random.split(jax.random.key(0), len(heads))
        arrays = [jax.random.normal(one, (1, tokens, n, sizes.head_dim), dtype) for one, n in zip(keys, heads, strict=True)]
        found = both(lambda *a: sharded.attend(kernel, *a))(*arrays)
        with jax.default_matmul_precision("highest"):
            wanted = both(attention.attend)(*(x.astype(jnp.float32) for x in arrays))
        errors = [jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel()) for a, b in zip(found, wanted, strict=True)]
        return float(jnp.max(jnp.stack(errors)))
