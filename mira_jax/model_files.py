"""Files of a model's folder: opened only if they are regular files that lie inside it.

A folder that was downloaded is data of a stranger. A symbolic link in it may name any file of this machine, which an
export would publish. Links inside the folder are followed, and those of huggingface_hub's cache:
`models--ORG--NAME/snapshots/REVISION/FILE` links to `models--ORG--NAME/blobs/HASH`.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any

from mira_jax.errors import UserError
from mira_jax.files import parse_json

MAX_JSON_BYTES = 100_000_000
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def locate(path: str | Path) -> Path | None:
    """`path` if that file is there and may be opened, None if there is nothing of that name.

    Raises:
        UserError: it is no regular file, a link that leads out of its folder or nowhere, or a pointer of Git LFS.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return None
    folder, target = path.parent.resolve(), path.resolve()
    cache = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    if not (target.is_relative_to(folder) or target.is_relative_to(cache)):
        raise UserError(f"{path}: is a link to {target}, outside of the model's folder; put a copy of the file there if you trust it")
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise UserError(f"{path}: is not a regular file")
        refuse_pointer(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {os.strerror(error.errno or 0)}") from None
    return path


def refuse_pointer(path: str | Path) -> None:
    """Raises UserError if the file is a pointer of Git LFS, and OSError if it cannot be read."""
    with open(path, "rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise UserError(f"{path}: is a pointer of Git LFS, not the file itself; run `git lfs pull` in the repository it came from")


def check_tree(folder: str | Path) -> None:
    """Raises UserError if a link anywhere under `folder` leads out of it: for formats whose files a library opens itself."""
    root = Path(folder).resolve()
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UserError(f"{path}: is a link to {path.resolve()}, outside of the model's folder; put a copy there if you trust it")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; of a key that appears twice the last one, as transformers reads it.

    Raises:
        UserError: there is no such file, it may not be opened (see `locate`), or holds no JSON object.
    """
    if locate(path) is None:
        raise UserError(f"{path}: cannot read it: {os.strerror(errno.ENOENT)}")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path}: has {path.stat().st_size:,} bytes; JSON of a model has at most {MAX_JSON_BYTES:,}")
    try:
        return parse_object(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {os.strerror(error.errno or 0)}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None


def parse_object(text: bytes) -> dict[str, Any]:
    """The JSON object that UTF-8 text holds. Raises ValueError if there is none."""
    tree = parse_json(text.decode("utf-8"))
    if not isinstance(tree, dict):
        raise ValueError(f"holds {type(tree).__name__} where an object is expected")
    return tree
