"""SHA-256 of every file of a checkpoint, kept inside it: written once it is complete, compared before it is read.

Orbax keeps no checksums of array data: a flipped bit there loads as another number.
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
"""Files hashed at once; hashlib lets other threads run meanwhile."""


def write(checkpoint: Path) -> None:
    """Hashes all files of FOLDER/checkpoints/STEP and lists them in it. Raises UserError if the disk is full."""
    names = [path.relative_to(checkpoint).as_posix() for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    files = dict(zip(names, _digests(checkpoint, names), strict=True))
    tree = {"format": FORMAT, "algorithm": "sha256", "step": int(checkpoint.name), "files": files}
    write_atomically(checkpoint / CHECKSUMS, to_json(tree, indent=1).encode())


def damage(checkpoint: Path, part: str | None = None) -> str | None:
    """What differs from the checksums, None if nothing does. `part`: of its folders only this one is looked at.

    A checkpoint without checksums, of an older version or just being completed, is said on stderr and taken as it is.
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
