"""Files of a model folder. A file is opened only if it is a regular file inside the folder.

A downloaded folder is untrusted data. A symbolic link in it may point to any file of this machine, which an export would then
publish. Links inside the folder are followed, and so are the links of huggingface_hub's cache:
`models--ORG--NAME/snapshots/REVISION/FILE` links to `models--ORG--NAME/blobs/HASH`.

A run stores the SHA-256 of its small files in run_files.json, and a file that differs is refused. One flipped bit in a tokenizer
or in model.json would change the model, and no other check would detect it.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mira_jax.errors import UserError
from mira_jax.files import parse_json, sha256, to_json, write_atomically

DIGESTS = "run_files.json"
MAX_JSON_BYTES = 100_000_000
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def locate(path: str | Path) -> Path | None:
    """`path` if the file exists and may be opened, None if it does not exist.

    Raises:
        UserError: it is not a regular file, is a broken link or a link out of its folder, is a Git LFS pointer, or differs
            from its SHA-256 in run_files.json.
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
        if path.name != DIGESTS and os.path.lexists(path.parent / DIGESTS):
            _compare(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {os.strerror(error.errno or 0)}") from None
    return path


@contextlib.contextmanager
def digests_of(folder: str | Path, names: Iterable[str]) -> Iterator[None]:
    """Removes run_files.json while these files of a run are written, then writes it with their SHA-256."""
    folder = Path(folder)
    (folder / DIGESTS).unlink(missing_ok=True)
    yield
    write_atomically(folder / DIGESTS, to_json({name: sha256(folder / name) for name in sorted(names)}, indent=1).encode())


def _compare(path: Path) -> None:
    digests = read_json(path.parent / DIGESTS)
    if path.name in digests and digests[path.name] != sha256(path):
        raise UserError(
            f"{path}: was damaged or changed after the run wrote it: its SHA-256 is not the one in {DIGESTS}; restore a copy, "
            f"or, if the change was intended, remove {DIGESTS}"
        )


def refuse_pointer(path: str | Path) -> None:
    """Raises UserError if the file is a Git LFS pointer, and OSError if it cannot be read."""
    with open(path, "rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise UserError(f"{path}: is a pointer of Git LFS, not the file itself; run `git lfs pull` in the repository it came from")


def check_tree(folder: str | Path) -> None:
    """Raises UserError if a link anywhere under `folder` points out of it. For formats whose files a library opens itself."""
    root = Path(folder).resolve()
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UserError(f"{path}: is a link to {path.resolve()}, outside of the model's folder; put a copy there if you trust it")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. If a key appears twice, the last value is used, as in transformers.

    Raises:
        UserError: the file does not exist, may not be opened (see `locate`), or does not contain a JSON object.
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
    """Parses a JSON object from UTF-8 text. Raises ValueError if the text is not one."""
    tree = parse_json(text.decode("utf-8"))
    if not isinstance(tree, dict):
        raise ValueError(f"holds {type(tree).__name__} where an object is expected")
    return tree
