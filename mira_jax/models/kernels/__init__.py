"""Attention kernels for accelerators. `mira_jax.models.attention` is the form that they are compared with."""
