"""Keeps freed host memory in the process.

XLA on CPU allocates its buffers for each step. glibc returns large buffers to the kernel, which must clear every page when
they are allocated again. For small models this takes a considerable part of a training step. Other C libraries are not
configured.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""Parameters of mallopt(3), from malloc.h."""
NO_TRIM = -1
"""A threshold that is never reached. An explicit number of bytes is at most 2 GiB, which the buffers of a long row exceed."""


def keep() -> bool:
    """Configures glibc to reuse memory instead of returning it. Returns whether this succeeded.

    Call it before JAX starts its backend: a thread that already has its own arena keeps it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: NO_TRIM, _TOP_PAD: 256 * 2**20, _ARENA_MAX: 1}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
