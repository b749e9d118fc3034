"""The token cache: examples on disk, with everything that they were made from.

An entry is a folder that is written once and is complete when it has its name:

    NAME/tokens.int32    the tokens, little-endian int32
    NAME/arrays.npz      the other arrays of `mira_jax.data.examples.Examples`
    NAME/made_from.json  the format, the inputs, and the SHA-256 of both files
    NAME.lock            exists while a process makes the entry

NAME is a hash of the inputs. They are compared once more when an entry is opened, and so are the hashes of its files. An entry
that differs is made again. Entries may be removed at any time.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.resources
import json
import logging
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mira_jax import files
from mira_jax.data.examples import TOKEN_DTYPE, Examples, ExamplesOf, map_tokens
from mira_jax.data.steps import ExamplesBuilder, step_examples
from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.tokenizer import Tokenizer

FORMAT = 1
REMEDY = "set data.cache (`cache` of mira score) to another folder, or to '' to keep the tokens in memory"
FOLDER = "token_cache"
TOKENS, ARRAYS, MADE_FROM = "tokens.int32", "arrays.npz", "made_from.json"
PACKAGES = ("mira_jax.data", "mira_jax.trajectories")
"""The source code that determines tokens."""
LIBRARIES = ("sentencepiece", "tokenizers")
ARRAY_NAMES = tuple(field.name for field in dataclasses.fields(Examples) if field.name not in ("tokens", "file"))

log = logging.getLogger(__name__)


def cache_folder(setting: str | None, out: str | Path) -> Path | None:
    """The folder of the token cache, None if there is none.

    By default it is next to `out`, the folder that a stage writes to, so that the stages of one phase share it.

    Args:
        setting: a folder, "" for no cache, or None for the default.

    Raises:
        UserError: the folder in `setting` cannot be written to. If this is true of the default, there is no cache.
    """
    if setting == "":
        return None
    folder = Path(setting) if setting else Path(out).absolute().parent / FOLDER
    try:
        with files.lock(folder / ".lock"):
            return folder
    except OSError as error:
        if setting:
            raise UserError(f"{folder}: cannot hold a token cache ({error.strerror}); {REMEDY}") from None
        log.warning("%s: cannot hold a token cache (%s); tokens are kept in memory; %s", folder, error.strerror, REMEDY)
        return None


def inputs(shards: Sequence[str], prompt: PromptConfig, tokenizer: Tokenizer, examples_of: ExamplesOf) -> dict[str, Any] | None:
    """Everything that determines the examples. None if this is not known, because `examples_of` is not of this package: it may
    call any code.

    Args:
        shards: SHA-256 of each shard, in the order of the reader.
    """
    if examples_of is not step_examples:
        return None
    ids = ("vocabulary_size", "pad_id", "eos_id", "bos_id", "start_of_turn_id", "end_of_turn_id")
    return {
        "shards": list(shards),
        "prompt": dataclasses.asdict(prompt),
        "tokenizer": {"sha256": tokenizer.sha256} | {name: getattr(tokenizer, name) for name in ids},
        "examples": f"{examples_of.__module__}.{examples_of.__qualname__}",
        "code": _code(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _code() -> str:
    """A hash of the source of `PACKAGES`, so that an entry of another version of this package is not used."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for file in sorted(importlib.resources.files(package).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(f"{package}/{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


class Entry:
    """One entry of the cache, which may not exist yet."""

    def __init__(self, folder: Path, made_from: dict[str, Any]):
        self._made_from = {"format": FORMAT, **made_from}
        name = hashlib.sha256(json.dumps(self._made_from, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / name
        self._reported = ""

    def open(self) -> Examples | None:
        """The examples, their tokens mapped from the file. None if the entry does not exist, or is damaged, which is logged."""
        if not self.path.exists():
            return None
        try:
            return self._open()
        except (OSError, ValueError, KeyError, EOFError, UserError, zipfile.BadZipFile) as error:
            if str(error) != self._reported:
                self._reported = str(error)
                log.warning("%s: damaged, made again: %s", self.path, error)
            return None

    def _open(self) -> Examples:
        head = files.read_json(self.path / MADE_FROM, "remove the folder")
        if head.get("made_from") != self._made_from:
            raise ValueError(f"{MADE_FROM} names other inputs")
        if files.sha256(self.path / ARRAYS) != head["files"][ARRAYS]:
            raise ValueError(f"the SHA-256 of {ARRAYS} is not the one in {MADE_FROM}")
        with np.load(self.path / ARRAYS, allow_pickle=False) as arrays:
            file = (self.path / TOKENS).absolute()
            examples = Examples(tokens=map_tokens(file), file=file, **{name: arrays[name] for name in ARRAY_NAMES})
        if examples.tokens_sha256 != head["files"][TOKENS]:
            raise ValueError(f"the SHA-256 of {TOKENS} is not the one in {MADE_FROM}")
        return examples

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the process that makes the entry. Waits for another process that holds it. Raises UserError if there are no locks."""
        with contextlib.ExitStack() as held:
            with self._errors():
                held.enter_context(files.lock(self.path.with_suffix(".lock"), self._say_waiting))
            yield

    def _say_waiting(self) -> None:
        log.info("%s: another process makes these tokens; waiting for it", self.path)

    @contextlib.contextmanager
    def writing(self, prompt: PromptConfig, tokenizer: Tokenizer, examples_of: ExamplesOf) -> Iterator[ExamplesBuilder]:
        """Yields a builder. The entry exists after the context, unless an error was raised in it. Call it within `lock`.

        Raises:
            UserError: the entry cannot be written.
        """
        digest = hashlib.sha256()
        with contextlib.ExitStack() as opened:
            with self._errors():
                partial = opened.enter_context(files.partial_folder(self.path))
                file = open(partial / TOKENS, "wb")  # noqa: SIM115, closing it may fail, as the rest of the data is written then
            opened.callback(_close, file)

            def append(tokens: np.ndarray) -> None:
                data = tokens.astype(TOKEN_DTYPE, copy=False).data
                digest.update(data)
                with self._errors():
                    file.write(data)

            builder = ExamplesBuilder(prompt, tokenizer, examples_of, append)
            yield builder
            with self._errors():
                file.close()
                examples = builder.build()
                np.savez(partial / ARRAYS, **{name: getattr(examples, name) for name in ARRAY_NAMES})
                sums = {TOKENS: digest.hexdigest(), ARRAYS: files.sha256(partial / ARRAYS)}
                head = {"created": files.now(), "made_from": self._made_from, "files": sums}
                files.write_atomically(partial / MADE_FROM, files.to_json(head, indent=1).encode())
                # Processes that have mapped the files of a damaged entry keep them.
                shutil.rmtree(self.path, ignore_errors=True)
                files.publish(partial, self.path)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: could not write the token cache ({error.strerror or error}); {files.remedy(error)}, or {REMEDY}"
            ) from None


def _close(file: BinaryIO) -> None:
    """Closes a file whose content no longer matters, because an error was raised or it is closed already."""
    with contextlib.suppress(OSError):
        file.close()
