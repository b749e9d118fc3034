"""Analyses the HLO text of a compiled program: bytes sent between chips, and bytes moved to and from memory.

XLA's own cost analysis counts the body of a loop once. This module counts each computation as often as it runs, using the
trip counts that XLA annotates at loops.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

_SENT = {
    "all-gather": lambda n: n - 1,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
"""Bytes that each of n chips sends in a ring, as a multiple of its operand's bytes."""
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all", "partition-id")
"""Instructions that move no data themselves."""
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
"""Instructions that change a part of their first operand in place, and the number of the operand that holds the new values."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    type: str
    opcode: str
    arguments: str
    """The text between the parentheses: the names of the operands, or the number of a parameter."""
    attributes: str
    root: bool

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(re.findall(r"%([\w.\-]+)", self.arguments))


@dataclasses.dataclass(frozen=True)
class Program:
    computations: dict[str, dict[str, Instruction]]
    entry: str
    runs: dict[str, int]
    """Number of times that each computation runs in one call of the program."""
    fused: frozenset[str]
    """Computations inside a fused kernel, and conditions of loops. Values passed between their instructions do not go through memory."""


@dataclasses.dataclass(frozen=True)
class Collective:
    instruction: str
    """The name of the instruction that starts it."""
    kind: str
    axes: tuple[str, ...]
    """The mesh axes that it communicates over."""
    size: int
    """Number of chips in each group."""
    bytes: float
    """Bytes that each chip sends in one call of the program, with a ring algorithm."""
    count: int
    """Number of times that it runs."""


def parse(text: str) -> Program:
    """Raises ValueError if `text` has no entry computation."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{\s*$", line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the program has no ENTRY computation")
    runs, fused = _runs(computations, entry)
    return Program(computations, entry, runs, fused)


def collectives(program: Program, mesh: Mapping[str, int]) -> list[Collective]:
    """All communication between chips. `mesh`: the sizes of its axes, in order. Devices are numbered in row-major order."""
    found = []
    progressed = _chained_collectives(program)
    for name, body in program.computations.items():
        for instruction in body.values():
            chain = _chain(instruction)
            if chain and progressed[chain][0] != instruction.name:
                continue
            kind = instruction.opcode.removesuffix("-start")
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"  # The TPU compiler emits a reduce-scatter as a kernel with an all-reduce and a slice.
            if kind not in _SENT or not program.runs.get(name):
                continue
            groups = _groups(instruction.attributes, math.prod(mesh.values()))
            size = len(groups[0])
            if size == 1:
                continue
            given = sum(type_bytes(body[operand].type) for operand in instruction.operands)
            runs = progressed[chain][1] if chain else program.runs[name]
            found.append(Collective(instruction.name, kind, _axes(groups, mesh), size, runs * given * _SENT[kind](size), runs))
    return found


def _chain(instruction: Instruction) -> str | None:
    """The id of a collective that the TPU compiler executes in pieces within several kernels. Each of these kernels carries the id."""
    noted = re.search(r'chain_id="(\d+)"', instruction.attributes)
    return noted[1] if noted else None


def _chained_collectives(program: Program) -> dict[str, tuple[str, int]]:
    """Chain id to (instruction, number of runs). Of the kernels that carry the id, it takes the one that runs least often, which
    begins or ends the collective. The kernels in loops between them execute the pieces, and counting them would count the
    collective repeatedly."""
    found: dict[str, tuple[str, int]] = {}
    for name, body in program.computations.items():
        for instruction in body.values():
            chain, runs = _chain(instruction), program.runs.get(name, 0)
            if chain and runs and (chain not in found or runs < found[chain][1]):
                found[chain] = instruction.name, runs
    return found


def memory_traffic(program: Program) -> float:
    """Bytes that one call moves between a chip and its memory: the bytes that each kernel reads and writes.

    A slice, gather or scatter counts only the bytes that it reads or writes, not the whole array. Buffers that XLA keeps on the
    chip (memory spaces other than 0) are not counted.
    """
    total = 0.0
    for name, body in program.computations.items():
        if name in program.fused or not program.runs.get(name):
            continue
        moved = sum(bytes_moved(program, body, instruction) for instruction in body.values())
        total += program.runs[name] * moved
    return total


def type_bytes(text: str, in_memory: bool = False) -> int:
    """Bytes of a type in XLA's notation, summed over tuples. `in_memory`: only arrays in the chip's main memory."""
    total = 0
    for kind, sizes, layout in re.findall(r"\b([a-z]\w*)\[([\d,]*)\](\{[^{}]*\})?", text):
        if in_memory and re.search(r"S\([1-9]", layout):
            continue
        total += math.prod(int(size) for size in sizes.split(",") if size) * _bits(kind) // 8
    return total


def shape(text: str) -> tuple[int, ...]:
    """The sizes of the first array in a type."""
    sizes = re.search(r"\[([\d,]*)\]", text)
    return tuple(int(size) for size in sizes[1].split(",") if size) if sizes else ()


def _bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    width = re.match(r"[a-z]+(\d+)", kind)
    return int(width[1]) if width else 0


def _instruction(line: str) -> Instruction | None:
    line = re.sub(r"/\*.*?\*/", "", line)
    start = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not start:
        return None
    rest = line[start.end() :]
    end = _close(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opcode = re.match(r"\s*([\w\-]+)\(", rest[end:])
    if not opcode:
        return None
    first = end + opcode.end() - 1
    last = _close(rest, first)
    return Instruction(start[2], rest[:end], opcode[1], rest[first + 1 : last], rest[last + 1 :], bool(start[1]))


def _close(text: str, opening: int) -> int:
    """The position of the parenthesis that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)


def _runs(computations: dict[str, dict[str, Instruction]], entry: str) -> tuple[dict[str, int], frozenset[str]]:
    runs: Counter[str] = Counter()
    fused: set[str] = set()

    def visit(name: str, times: int, inside: bool) -> None:
        runs[name] += times
        if inside:
            fused.add(name)
        for instruction in computations[name].values():
            turns = trip_count(computations, instruction) if instruction.opcode == "while" else 1
            for key, callee in callees(instruction):
                program = key in ("body", "branch") or instruction.opcode == "call"
                if callee in computations:
                    visit(callee, times * turns, inside or not program)

    visit(entry, 1, False)
    return dict(runs), frozenset(fused)


def callees(instruction: Instruction) -> list[tuple[str, str]]:
    """The computations that an instruction calls, each with its role: body, condition, calls, to_apply or branch."""
    found = re.findall(r"(body|condition|calls|to_apply)=%?([\w.\-]+)", instruction.attributes)
    if branches := re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes):
        found += [("branch", branch) for branch in re.findall(r"[\w.\-]+", branches[1])]
    return found + [("branch", branch) for branch in re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction.attributes)]


def trip_count(computations: dict[str, dict[str, Instruction]], loop: Instruction) -> int:
    """The trip count of a loop. XLA's annotation if present. Otherwise N if the condition is i < N, because JAX's scans count
    from 0. Otherwise 1."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(noted[1])
    condition = computations[re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1]]
    test = next(part for part in condition.values() if part.root)
    limit = condition[test.operands[-1]] if test.opcode == "compare" and "direction=LT" in test.attributes else None
    return int(limit.arguments) if limit and limit.opcode == "constant" else 1


def _groups(attributes: str, devices: int) -> np.ndarray:
    """Device numbers, [groups, size]. XLA writes the groups in several forms: explicit pairs, tiled, named and listed."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", attributes):
        return np.array([[int(x) for x in pair.split(",")] for pair in re.findall(r"\{([\d,]+)\}", pairs[1])])
    if tiled := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        shape, source = ([int(x) for x in tiled[i].split(",")] for i in (1, 2))
        numbers = np.arange(math.prod(source)).reshape(source)
        if tiled[3]:
            numbers = numbers.transpose([int(x) for x in tiled[3].split(",")])
        return numbers.reshape(shape)
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        return _named_groups(*named.groups())
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", attributes):
        return np.array([[int(x) for x in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])])
    return np.arange(devices)[None]


def _named_groups(mesh: str, axes: str) -> np.ndarray:
    """Groups in the named form. mesh['a'=4,'b'=2] {'a'} groups devices that differ only in `a`. 'a':(p)s is the sub-axis of `a`
    with size s that follows a sub-axis of size p."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    if re.sub(r"'[^']+'=\d+,?", "", mesh):
        raise ValueError(f"replica_groups of a mesh whose devices are in another order: mesh[{mesh}]")
    places = dict(zip(sizes, np.unravel_index(np.arange(math.prod(sizes.values())), tuple(sizes.values())), strict=True))
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
        part = int(size or sizes[name])
        stride = sizes[name] // (int(before or 1) * part)
        # Sets the coordinate along the sub-axis to 0, so that all devices of a group get the same key.
        places[name] = places[name] - places[name] // stride % part * stride
    keys = np.ravel_multi_index(tuple(places.values()), tuple(sizes.values()))
    return np.array([np.flatnonzero(keys == key) for key in np.unique(keys)])


def _axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    places = np.array(np.unravel_index(groups.reshape(-1), tuple(mesh.values()))).reshape(len(mesh), *groups.shape)
    varies = (places != places[:, :, :1]).any(axis=(1, 2))
    return tuple(axis for axis, here in zip(mesh, varies, strict=True) if here)


def bytes_moved(program: Program, body: dict[str, Instruction], instruction: Instruction) -> float:
    """Bytes that one run of an instruction reads and writes."""
    opcode, here = instruction.opcode, lambda name: type_bytes(body[name].type, in_memory=True)
    # The corresponding -start instruction already counts the bytes of an asynchronous operation.
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    result = type_bytes(instruction.type, in_memory=True)
    if opcode in ("dynamic-slice", "gather"):
        return 2 * result
    if opcode in _UPDATES:
        return 2 * here(instruction.operands[_UPDATES[opcode]])
    if opcode.endswith("-start"):
        return result  # The type is a tuple that contains both operand and result.
    if opcode != "fusion":
        return result + sum(here(name) for name in instruction.operands)
    inner = _called(program, instruction)
    # This kernel completes a collective that runs in pieces, whose bytes `collectives` counts.
    if any("AsyncCollectiveDone" in part.attributes for part in inner.values()):
        return 0
    read = sum(min(_bytes_read(program, inner, part.name), here(name)) for part, name in _parameters_with_operands(inner, instruction))
    return read + max(0, result - _bytes_not_written(inner))


def _called(program: Program, fusion: Instruction) -> dict[str, Instruction]:
    return program.computations[re.search(r"calls=%?([\w.\-]+)", fusion.attributes)[1]]


def _parameters_with_operands(inner: dict[str, Instruction], fusion: Instruction) -> list[tuple[Instruction, str]]:
    """The parameters of a fused kernel, each with its operand."""
    parameters = sorted((part for part in inner.values() if part.opcode == "parameter"), key=lambda part: int(part.arguments))
    return list(zip(parameters, fusion.operands, strict=False))


def _bytes_read(program: Program, inner: dict[str, Instruction], name: str) -> float:
    """Bytes that a fused kernel reads of one of its parameters. Infinite if it reads the whole operand, which the caller bounds
    by the operand's size."""
    total = 0.0
    for user in inner.values():
        if name not in user.operands or user.opcode == "tuple" or _chain(user):
            continue  # A tuple only passes the value on, and a collective in pieces runs alongside the kernel; see `_bytes_not_written`.
        if user.opcode in ("dynamic-slice", "gather") and name == user.operands[0]:
            # The kernel may read only a part of the slice in turn.
            leaves = user.root or any(other.opcode == "tuple" and user.name in other.operands for other in inner.values())
            total += min(type_bytes(user.type), math.inf if leaves else _bytes_read(program, inner, user.name))
        elif user.opcode == "bitcast":
            total += _bytes_read(program, inner, user.name)
        elif user.opcode == "fusion":
            nested = _called(program, user)
            total += sum(
                _bytes_read(program, nested, part.name) for part, operand in _parameters_with_operands(nested, user) if operand == name
            )
        elif user.opcode not in _UPDATES or user.operands[0] != name:
            return math.inf
    return total


def _bytes_not_written(inner: dict[str, Instruction]) -> int:
    """Bytes of a fused kernel's results that it does not write: it updates them in place, or only passes them on."""
    root = next(part for part in inner.values() if part.root)
    left = 0
    for part in [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]:
        while part.opcode == "bitcast":
            part = inner[part.operands[0]]
        if root.opcode == "tuple" and (part.opcode == "parameter" or _chain(part)):
            left += type_bytes(part.type, in_memory=True)
        if part.opcode in _UPDATES:
            left += type_bytes(part.type) - type_bytes(inner[part.operands[_UPDATES[part.opcode]]].type)
    return left
