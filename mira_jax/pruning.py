"""Removal of files that old phases no longer need."""

import glob
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mira_jax.errors import UserError
from mira_jax.stages import Stage


def prune(out: str, patterns: Sequence[str], ahead: Sequence[Stage]) -> Iterator[tuple[str, int]]:
    """Removes the files and folders that match the patterns, and yields the path and the size in bytes of each.

    Args:
        out: the folder of the run. Nothing outside of it is removed.
        ahead: the stages still to run. A path is kept if one of them names it, a path inside it, or a folder that contains it.

    Raises:
        UserError: a path cannot be removed.
    """
    named = (text for stage in ahead for text in _strings([stage.set, stage.serve and stage.serve.model]))
    needed = [_absolute(text) for text in named if text]
    root = Path(out).resolve()
    for pattern in patterns:
        for match in sorted(glob.glob(pattern, recursive=True)):
            path = _absolute(match)
            if any(_inside(path, other) or _inside(other, path) for other in needed):
                continue
            if root not in Path(path).resolve().parents or os.path.islink(path):
                continue
            size = _size(Path(path))
            try:
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            except OSError as error:
                raise UserError(f"{match}: cannot be removed ({error.strerror}); run again without prune") from None
            yield match, size


def _inside(path: str, other: str) -> bool:
    """Whether `path` is `other`, or inside it."""
    return path == other or path.startswith(other.rstrip(os.sep) + os.sep)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if "\0" not in path else path


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from (key, *_strings(value))
    elif isinstance(tree, list):
        for item in tree:
            yield from _strings(item)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file() or file.is_symlink())
