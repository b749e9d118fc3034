"""Waiting for what processes do, with a limit."""

import time
from pathlib import Path

PATIENCE = 100
"""Seconds after which something that was to happen is taken never to happen."""


def until(done, what):
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def command_line(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


# The browser.
