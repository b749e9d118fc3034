"""How exactly matrix products of float32 are computed. One setting for the process: JAX's own, `jax_default_matmul_precision`.

XLA's own default is not float32: a GPU rounds both factors to TF32 (10 bits of fraction of 23), a TPU to bfloat16 (7 bits).
Products of bfloat16 are the same at every setting: their factors are exact, and their sums are float32.
"""

from typing import Literal, get_args

import jax

Precision = Literal["highest", "high", "default"]
"""highest: float32, on every backend. high: TF32 on GPUs, three products of bfloat16 for one on TPUs. default: TF32 on GPUs,
one product of bfloat16 on TPUs. On CPUs all three are float32."""
PRECISIONS = get_args(Precision)


def use_precision(name: Precision) -> None:
    """Sets it for all that is traced from now on, in every thread."""
    jax.config.update("jax_default_matmul_precision", name)
