"""SHA-256 of every file of a checkpoint. The checksums are stored in it when it is complete, and verified before it is read.

Orbax has no checksums for array data, so a flipped bit would load as a different number.
"""

import functools
import hashlib
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mira_jax.errors import UserError
from mira_jax.files import read_json, to_json, write_atomically

CHECKSUMS = "checksums.json"
FORMAT = 1
THREADS = 4
"""Number of files hashed at once. hashlib releases the GIL while hashing."""


def write(checkpoint: Path) -> None:
    """Hashes all files of FOLDER/checkpoints/STEP and writes the list to that folder. Raises UserError if the disk is full."""
    names = [path.relative_to(checkpoint).as_posix() for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    files = dict(zip(names, _digests(checkpoint, names), strict=True))
    tree = {"format": FORMAT, "algorithm": "sha256", "step": int(checkpoint.name), "files": files}
    write_atomically(checkpoint / CHECKSUMS, to_json(tree, indent=1).encode())


def damage(checkpoint: Path, part: str | None = None) -> str | None:
    """Describes the difference from the checksums, or None if there is none. `part`: check only this subfolder.

    A checkpoint without checksums, from an older version or an unfinished save, is accepted with a note on stderr.
    """
    if not (checkpoint / CHECKSUMS).exists():
        _say_unchecked(checkpoint)
        return None
    try:
        tree = read_json(checkpoint / CHECKSUMS, "")
        if tree["format"] != FORMAT or tree["algorithm"] != "sha256":
            return f"{CHECKSUMS} is of a format that this version does not know"
        if tree["step"] != int(checkpoint.name):
            return f"it was saved as {tree['step']} and is named {checkpoint.name}"
        expected = {name: digest for name, digest in tree["files"].items() if part is None or name.split("/")[0] == part or "/" not in name}
        if part and not any(name.startswith(part + "/") for name in expected):
            return f"{CHECKSUMS} lists no files of {part}"
        found = dict(zip(expected, _digests(checkpoint, expected), strict=True))
    except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
        return f"{CHECKSUMS} is damaged ({type(error).__name__})"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    different = [name for name in expected if found[name] != expected[name]]
    more = f" and {len(different) - 1} more files differ from their checksums" if len(different) > 1 else " differs from its checksum"
    return different[0] + more if different else None


def _digests(checkpoint: Path, names: Iterable[str]) -> list[str]:
    def digest(name: str) -> str:
        with open(checkpoint / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(digest, names))


@functools.cache
def _say_unchecked(checkpoint: Path) -> None:
    print(f"{checkpoint}: has no {CHECKSUMS}, so that damage to its files can't be found", file=sys.stderr)
