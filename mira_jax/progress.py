"""Progress of a long loop: a bar on a terminal, otherwise a plain line every 30 seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS = 30.0
"""Interval between two lines in a log."""


class Progress:
    """Counts units of work on stderr. Use it as a context manager."""

    def __init__(self, name: str, unit: str, total: int, done: int = 0, shown: bool = True, seconds: float = SECONDS):
        """`done`: units completed by an earlier run. `shown`: False prints nothing."""
        self._name, self._unit, self._total, self._first, self._done = name, unit, total, done, done
        self._seconds, self._note, self._bar = seconds, "", None
        self._log: TextIO | None = sys.stderr if shown else None
        self._began = self._printed = time.monotonic()
        if self._log is not None and self._log.isatty():
            self._bar = tqdm(total=total, initial=done, desc=name, unit=unit, mininterval=1.0, file=self._log, dynamic_ncols=True)
            self._log = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done > self._first:
            self._print()

    def update(self, units: int = 1) -> None:
        self._done += units
        if self._bar is not None:
            self._bar.update(units)
        elif time.monotonic() - self._printed >= self._seconds and self._done < self._total:
            self._print()

    def note(self, text: str) -> None:
        """Sets the text that is shown after the counts."""
        self._note = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def _print(self) -> None:
        if self._log is None:
            return
        self._printed = time.monotonic()
        elapsed = self._printed - self._began
        rate = (self._done - self._first) / max(elapsed, 1e-9)
        parts = [f"{self._name}: {self._done} of {self._total} {self._unit}", f"{elapsed:.0f} s", f"{rate:.3g}/s"]
        if self._done < self._total:
            parts.append(f"{(self._total - self._done) / rate:.0f} s left")
        print(", ".join([*parts, *([self._note] if self._note else [])]), file=self._log, flush=True)


def track(items: Iterable[Item], name: str, unit: str, total: int, shown: bool = True) -> Iterator[Item]:
    """Yields the items and counts them."""
    with Progress(name, unit, total, shown=shown) as progress:
        for item in items:
            try:
                yield item
            finally:
                # Also counts the last item if the consumer does not ask for another.
                progress.update()
