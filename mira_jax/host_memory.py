"""Keeps freed host memory in the process.

XLA on CPU allocates its buffers anew for each step. glibc gives large ones back to the kernel, which then clears every
page of them again, which in small models is a good part of a training step. Other C libraries are left alone.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""Parameters of mallopt(3), from malloc.h."""
NEVER = -1
"""As a threshold: any number of bytes would be at most 2 GiB, which the buffers of a long row exceed."""


def keep() -> bool:
    """Tells glibc to reuse memory rather than return it; says if it took.

    To be called before JAX starts its backend: threads that have an arena of their own by then keep it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: NEVER, _TOP_PAD: 256 * 2**20, _ARENA_MAX: 1}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
