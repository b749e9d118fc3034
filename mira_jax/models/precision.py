"""Precision of float32 matrix products: the process-wide JAX setting `jax_default_matmul_precision`.

The default of XLA is not float32: a GPU rounds both factors to TF32 (10 of 23 fraction bits), a TPU to bfloat16 (7 bits).
Products of bfloat16 are the same with every setting: the factors are exact, and the sums are float32.
"""

from typing import Literal, get_args

import jax

Precision = Literal["highest", "high", "default"]
"""highest: float32 on every backend. high: TF32 on GPUs, three bfloat16 products on TPUs. default: TF32 on GPUs, one bfloat16
product on TPUs. On CPUs, all three are float32."""
PRECISIONS = get_args(Precision)


def use_precision(name: Precision) -> None:
    """Sets the precision of everything that is traced afterwards, in every thread."""
    jax.config.update("jax_default_matmul_precision", name)
