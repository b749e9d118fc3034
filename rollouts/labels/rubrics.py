"""Files of rubrics: for each dimension of a plan's grade its description, what the grades mean, and its weight."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mira_jax import config
from mira_jax.errors import UserError, first_line
from mira_jax.files import write_atomically
from mira_jax.trajectories.plan_grades import DIMENSIONS, HIGHEST

FORMAT = 1
DEFAULT = "configs/anchor/rubric.yaml"
LONGEST = 100_000
"""Maximum bytes of a file."""
TEXT = 500
"""Maximum characters of a description or anchor."""
_ADVICE = f"see {DEFAULT}"


class Dimension(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    description: str
    anchors: dict[int, str]
    """Grade, 0 to 5, to what it means."""
    weight: float


@dataclasses.dataclass(frozen=True)
class Rubric:
    dimensions: tuple[Dimension, ...]
    """In the order of `DIMENSIONS`."""
    sha256: str
    """Of the file."""

    @property
    def weights(self) -> dict[str, float]:
        return {one.name: one.weight for one in self.dimensions}


def read(path: str | Path) -> Rubric:
    """Reads a file in YAML or JSON.

    Raises:
        UserError: it cannot be read, is of another format, or a dimension or weight is missing, repeated, unknown or not positive.
    """
    try:
        data = config.find(Path(path)).read_bytes()
        if len(data) > LONGEST:
            raise UserError(f"{path}: has {len(data):,} bytes, more than {LONGEST:,}; {_ADVICE}")
        tree = yaml.safe_load(data)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; name a rubric, such as {DEFAULT}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a rubric: {first_line(error)}; {_ADVICE}") from None
    return Rubric(_dimensions(path, tree), hashlib.sha256(data).hexdigest())


def write(path: Path, dimensions: Sequence[Dimension]) -> None:
    """Writes the file. Raises UserError if it exists already, or cannot be written."""
    if path.exists():
        raise UserError(f"{path}: exists already; versions of a rubric are never overwritten, choose another out")
    tree = {"format": FORMAT, "dimensions": [msgspec.structs.asdict(one) for one in dimensions]}
    write_atomically(path, yaml.safe_dump(tree, sort_keys=False, width=140, allow_unicode=True).encode())


def _dimensions(path: str | Path, tree: Any) -> tuple[Dimension, ...]:
    if not isinstance(tree, dict) or not isinstance(tree.get("dimensions"), list):
        raise UserError(f"{path}: dimensions: a rubric is a mapping with format and a list of dimensions; {_ADVICE}")
    if tree.get("format") != FORMAT:
        raise UserError(f"{path}: format {tree.get('format')!r}; this version reads rubrics of format {FORMAT}; {_ADVICE}")
    if unknown := sorted(map(str, set(tree) - {"format", "dimensions"})):
        raise UserError(f"{path}: {unknown[0]}: unknown key; leave it out")
    found: dict[str, Dimension] = {}
    for place, one in enumerate(tree["dimensions"]):
        where = f"{path}: dimensions.{place}"
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or name not in DIMENSIONS:
            raise UserError(f"{where}.name: {str(name)[:40]!r} is none of {', '.join(DIMENSIONS)}; {_ADVICE}")
        if name in found:
            raise UserError(f"{where}.name: {name} is there twice; leave one of them out")
        found[name] = _dimension(f"{where} ({name})", one)
    if missing := [name for name in DIMENSIONS if name not in found]:
        raise UserError(f"{path}: dimensions: {', '.join(missing)} missing; a rubric has {', '.join(DIMENSIONS)}; {_ADVICE}")
    return tuple(found[name] for name in DIMENSIONS)


def _dimension(where: str, tree: Mapping[str, Any]) -> Dimension:
    if "weight" not in tree:
        raise UserError(f"{where}: weight is missing; set it, for example weight: 1")
    try:
        one = msgspec.convert(tree, Dimension, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {error}; {_ADVICE}") from None
    if not math.isfinite(one.weight) or one.weight <= 0:
        raise UserError(f"{where}.weight: {one.weight} is not positive; leave every dimension a share, for example weight: 1")
    if set(one.anchors) != set(range(HIGHEST + 1)):
        raise UserError(f"{where}.anchors: say what each grade from 0 to {HIGHEST} means; {_ADVICE}")
    for text in (one.description, *one.anchors.values()):
        if not text.strip() or len(text) > TEXT:
            raise UserError(f"{where}: a description or anchor is empty or longer than {TEXT} characters; {_ADVICE}")
    return one
