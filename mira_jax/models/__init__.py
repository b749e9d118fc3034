from mira_jax import extras

extras.require("train")

import jax  # noqa: E402

from mira_jax.models.precision import use_precision  # noqa: E402

# Does not override a value set by JAX_DEFAULT_MATMUL_PRECISION or jax.config. Commands set the value of their config.
if jax.config.jax_default_matmul_precision is None:
    use_precision("highest")
