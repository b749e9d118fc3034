"""Whether a process still runs, on Linux."""

import time
from pathlib import Path


def runs(pid: int) -> bool:
    """Whether a process runs. One that ended may still wait for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends between opening and reading
        return False


def ends(pid: int, seconds: float = 60) -> bool:
    """Whether a process ends in so many seconds."""
    limit = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    return not runs(pid)
