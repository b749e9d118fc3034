"""Files of published benchmarks, in the formats of their authors: BrowseComp, BrowseComp-ZH, xbench-DeepSearch, and GAIA.

Sources: openai/simple-evals, browsecomp_eval.py; PALIN2018/BrowseComp-ZH, data/browsecomp-zh-decrypt.py and its xlsx;
xbench-ai/xbench-evals, xbench_evals.py and data/*.csv; the dataset card of gaia-benchmark/GAIA. No message shows a decrypted text.
"""

import base64
import csv
import dataclasses
import hashlib
import io
import itertools
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mira_jax.errors import ConfigError, UserError, raise_all
from rollouts.suites import task_files

SHEET = ".xlsx"
HIDDEN = "?"
"""GAIA's final answer in the split test, whose answers are not published."""


@dataclasses.dataclass(frozen=True)
class PublishedQuestion:
    id: str
    text: str
    answer: str
    template: str
    canary: str = ""


def hashed_key(canary: str) -> bytes:
    """The key of BrowseComp and BrowseComp-ZH: the SHA-256 of the canary."""
    return hashlib.sha256(canary.encode()).digest()


@dataclasses.dataclass(frozen=True)
class Table:
    """The format of a CSV file with a row for each question, which is encrypted by XOR with a repeated key, then coded in base64."""

    name: str
    question: str
    answer: str
    topic: str
    """Column of the topic. Empty: none."""
    key: Callable[[str], bytes]
    """The key, from the canary of the row."""
    id: str = ""
    """Column of the id. Empty: the id is a hash of the question."""
    encrypted_topic: bool = False
    unused: tuple[str, ...] = ()
    """Further columns, which tell the file from that of another benchmark."""


TABLES: Mapping[str, Table] = {
    "browsecomp": Table("BrowseComp", "problem", "answer", "problem_topic", hashed_key),
    "browsecomp_zh": Table("BrowseComp-ZH", "Question", "Answer", "Topic", hashed_key, encrypted_topic=True),
    "xbench": Table("xbench-DeepSearch", "prompt", "answer", "", str.encode, id="id", unused=("reference_steps",)),
}
CANARY = "canary"


def short_hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def read_table(path: str, key: str, table: Table) -> dict[str, PublishedQuestion]:
    """Decrypts all rows.

    Args:
        key: the option that names `path`.

    Raises:
        UserError: the file cannot be read or lacks a column, a row does not decrypt, or two have the same id. Every such row is named.
    """
    rows = csv.DictReader(io.StringIO(_text(path, key, table), newline=""), strict=True)
    found: dict[str, PublishedQuestion] = {}
    errors: list[UserError] = []
    try:
        columns = [name for name in (table.question, table.answer, table.topic, table.id, *table.unused, CANARY) if name]
        missing = [name for name in columns if name not in (rows.fieldnames or ())]
        if missing:
            raise ConfigError(
                key,
                f"{path}: no column {', '.join(missing)}; a file of {table.name} has {', '.join(columns)}; check suite.options.benchmark",
            )
        for number, row in enumerate(rows, 1):
            try:
                one = _decrypted(row, table)
                if one.id in found:
                    raise ValueError(f"the id {one.id} occurs twice")
                found[one.id] = one
            except ValueError as error:
                errors.append(UserError(f"{path}, question {number}: {error}; get the file of {table.name} again from its authors"))
    except csv.Error as error:
        raise ConfigError(key, f"{path}, line {rows.line_num}: not CSV ({error}); get the file of {table.name} again") from None
    if len(errors) > task_files.SHOWN:
        errors = [*errors[: task_files.SHOWN], UserError(f"{path}: {len(errors) - task_files.SHOWN} more questions are wrong")]
    raise_all(errors)
    if not found:
        raise ConfigError(key, f"{path}: no questions in it")
    return found


def _text(path: str, key: str, table: Table) -> str:
    """Raises ConfigError."""
    if Path(path).suffix.lower() == SHEET:
        raise ConfigError(key, f"{path}: a spreadsheet; save it as CSV in UTF-8, with its columns (docs/seeking-real.md)")
    try:
        if Path(path).stat().st_size > task_files.MAX_BYTES:
            raise ConfigError(key, f"{path}: larger than {task_files.MAX_BYTES >> 20} MiB, which no file of {table.name} is")
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(key, f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(key, f"{path}: not UTF-8, at byte {error.start}; give the CSV file of {table.name}") from None


def _decrypted(row: Mapping[str, Any], table: Table) -> PublishedQuestion:
    """Raises ValueError, whose message shows nothing of the texts."""
    if None in row or None in row.values():
        raise ValueError("it has another number of columns than the first line")
    canary = row[CANARY].strip()
    if not canary:
        raise ValueError(f"{CANARY}: empty, and it is the key")
    secret = table.key(canary)
    text, answer = (_decrypt(row[name], secret, name) for name in (table.question, table.answer))
    topic = (_decrypt(row[table.topic], secret, table.topic) if table.encrypted_topic else row[table.topic]) if table.topic else ""
    if len(text) > task_files.MAX_INTENT:
        raise ValueError(f"{table.question}: {len(text):,} characters; at most {task_files.MAX_INTENT:,}")
    name = row[table.id].strip() if table.id else short_hash(text)
    task_files.check_id(name)
    return PublishedQuestion(name, text, answer, " ".join(topic.split()), canary)


def _decrypt(cipher: str, secret: bytes, column: str) -> str:
    try:
        data = base64.b64decode(cipher.strip(), validate=True)
    except ValueError:
        raise ValueError(f"{column}: not base64, so it is not the encrypted file") from None
    plain = bytes(one ^ other for one, other in zip(data, itertools.cycle(secret), strict=False))
    try:
        text = plain.decode()
    except UnicodeDecodeError:
        text = ""
    # Another key gives random bytes, which in a question are not UTF-8, or have control characters.
    if not text or any(unicodedata.category(character) == "Cc" and character not in "\n\r\t" for character in text):
        raise ValueError(f"{column}: does not decrypt to text with the {CANARY} of its row")
    if not text.strip():
        raise ValueError(f"{column}: empty")
    return text.strip()


def read_gaia(path: str, key: str) -> dict[str, PublishedQuestion]:
    """The questions of a `metadata.jsonl` of GAIA that come without a file.

    Raises:
        UserError: the file cannot be read, has another format, or holds no answers, as that of the split test.
    """
    if Path(path).suffix.lower() != ".jsonl":
        raise ConfigError(key, f"{path}: not a metadata.jsonl; convert metadata.parquet to JSON Lines (docs/seeking-real.md)")
    return task_files.read_tasks(path, key, _gaia)


def _gaia(tree: Any) -> PublishedQuestion | None:
    """None for a question with a file. Raises ValueError."""
    if not isinstance(tree, dict):
        raise ValueError("not an object with the fields of GAIA's metadata.jsonl")
    for field in ("task_id", "Question", "Final answer", "file_name"):
        if not isinstance(tree.get(field), str):
            raise ValueError(f"{field} is missing or no text; this is not a metadata.jsonl of GAIA")
    level = str(tree.get("Level"))
    if level not in ("1", "2", "3"):
        raise ValueError("Level is none of 1, 2, 3; this is not a metadata.jsonl of GAIA")
    if tree["Final answer"].strip() in ("", HIDDEN):
        raise ValueError("its answer is not published; use the file of GAIA's validation split")
    task_files.check_id(tree["task_id"])
    text = tree["Question"].strip()
    if not text or len(text) > task_files.MAX_INTENT:
        raise ValueError(f"Question: {len(text):,} characters; it must have 1 to {task_files.MAX_INTENT:,}")
    return None if tree["file_name"] else PublishedQuestion(tree["task_id"], text, tree["Final answer"].strip(), f"level_{level}")
