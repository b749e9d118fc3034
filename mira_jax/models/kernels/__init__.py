"""Attention by kernels of the accelerators, as an alternative to plain XLA (`mira_jax.models.attention`).

choose    which implementation serves each kind of layer, and why
check     compares the chosen ones with XLA on this machine
ranges    the range of keys that each query sees
splash    the kernel for TPUs
flash     the kernel for GPUs
sharded   a kernel on a mesh of devices
"""
