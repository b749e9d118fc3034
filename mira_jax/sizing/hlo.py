"""Reads the text of a compiled program: what it sends between chips, and what it moves to and from memory.

XLA's own cost analysis counts the body of a loop once. Here each computation counts as often as it runs, by the trip
counts that XLA notes at its loops.
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
"""What a chip of n sends round a ring, in parts of what it is given."""
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all", "partition-id")
"""Instructions that move nothing themselves."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    type: str
    opcode: str
    arguments: str
    """As written between its parentheses: the names of its operands, or the number of a parameter."""
    attributes: str
    root: bool

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(re.findall(r"%([\w.\-]+)", self.arguments))


@dataclasses.dataclass(frozen=True)
class Program:
    computations: dict[str, dict[str, Instruction]]
    runs: dict[str, int]
    """How often each computation runs in one call of the program."""
    fused: frozenset[str]
    """Computations within one kernel, and conditions of loops: nothing between their instructions goes through memory."""


@dataclasses.dataclass(frozen=True)
class Collective:
    kind: str
    axes: tuple[str, ...]
    """The mesh axes whose chips it joins."""
    size: int
    """How many chips it joins."""
    bytes: float
    """That each chip sends in one call of the program, on the shortest way round a ring."""
    count: int
    """How often it runs."""


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
    return Program(computations, runs, fused)


def collectives(program: Program, mesh: Mapping[str, int]) -> list[Collective]:
    """All that chips send to each other. `mesh`: the sizes of its axes, in order; devices are numbered row by row."""
    found = []
    progressed = _progressed(program)
    for name, body in program.computations.items():
        for instruction in body.values():
            chain = _chain(instruction)
            if chain and progressed[chain][0] != instruction.name:
                continue
            kind = instruction.opcode.removesuffix("-start")
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"  # How the TPU compiler writes it: an all-reduce and a slice in one kernel.
            if kind not in _SENT or not program.runs.get(name):
                continue
            groups = _groups(instruction.attributes, math.prod(mesh.values()))
            size = len(groups[0])
            if size == 1:
                continue
            given = sum(type_bytes(body[operand].type) for operand in instruction.operands)
            runs = progressed[chain][1] if chain else program.runs[name]
            found.append(Collective(kind, _axes(groups, mesh), size, runs * given * _SENT[kind](size), runs))
    return found


def _chain(instruction: Instruction) -> str | None:
    """What a collective is known by that the TPU compiler carries out piece by piece within several kernels, each of which names it."""
    noted = re.search(r'chain_id="(\d+)"', instruction.attributes)
    return noted[1] if noted else None


def _progressed(program: Program) -> dict[str, tuple[str, int]]:
    """Chain to the instruction that begins or ends it, and how often: the one that runs least, as loops between make many pieces."""
    found: dict[str, tuple[str, int]] = {}
    for name, body in program.computations.items():
        for instruction in body.values():
            chain, runs = _chain(instruction), program.runs.get(name, 0)
            if chain and runs and (chain not in found or runs < found[chain][1]):
                found[chain] = instruction.name, runs
    return found


def memory_traffic(program: Program) -> float:
    """Bytes that one call moves between a chip and its memory: what each kernel reads and writes.

    Slices count as what they take or put, not as what they are taken from. Buffers that XLA keeps on the chip
    (memory spaces other than 0) do not count.
    """
    total = 0.0
    for name, body in program.computations.items():
        if name in program.fused or not program.runs.get(name):
            continue
        moved = sum(_moved(program, body, instruction) for instruction in body.values())
        total += program.runs[name] * moved
    return total


def type_bytes(text: str, in_memory: bool = False) -> int:
    """Bytes of a type as XLA writes it, tuples summed. `in_memory`: of arrays in the chip's main memory alone."""
    total = 0
    for kind, sizes, layout in re.findall(r"\b([a-z]\w*)\[([\d,]*)\](\{[^{}]*\})?", text):
        if in_memory and re.search(r"S\([1-9]", layout):
            continue
        total += math.prod(int(size) for size in sizes.split(",") if size) * _bits(kind) // 8
    return total


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
    """Where the parenthesis that opens at `opening` closes."""
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
            turns = _turns(computations, instruction) if instruction.opcode == "while" else 1
            callees = re.findall(r"(body|condition|calls|to_apply)=%?([\w.\-]+)", instruction.attributes)
            if branches := re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes):
                callees += [("branch", branch) for branch in re.findall(r"[\w.\-]+", branches[1])]
            for key, callee in callees:
                program = key in ("body", "branch") or instruction.opcode == "call"
                if callee in computations:
                    visit(callee, times * turns, inside or not program)

    visit(entry, 1, False)
    return dict(runs), frozenset(fused)


def _turns(computations: dict[str, dict[str, Instruction]], loop: Instruction) -> int:
    """As XLA notes it; else, where the condition is i < N, N, as JAX's scans count from 0; else 1."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(noted[1])
    condition = computations[re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1]]
    test = next(part for part in condition.values() if part.root)
    limit = condition[test.operands[-1]] if test.opcode == "compare" and "direction=LT" in test.attributes else None
    return int(limit.arguments) if limit and limit.opcode == "constant" else 1


def _groups(attributes: str, devices: int) -> np.ndarray:
    """[groups, size] of device numbers."""
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
    """Of mesh['a'=4,'b'=2] {'a'}: devices that differ in `a` alone. 'a':(p)s is the part of size s of `a` behind one of p."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    if re.sub(r"'[^']+'=\d+,?", "", mesh):
        raise ValueError(f"replica_groups of a mesh whose devices are in another order: mesh[{mesh}]")
    places = dict(zip(sizes, np.unravel_index(np.arange(math.prod(sizes.values())), tuple(sizes.values())), strict=True))
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
        part = int(size or sizes[name])
        stride = sizes[name] // (int(before or 1) * part)
        places[name] = places[name] - places[name] // stride % part * stride
    keys = np.ravel_multi_index(tuple(places.values()), tuple(sizes.values()))
    return np.array([np.flatnonzero(keys == key) for key in np.unique(keys)])


def _axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    places = np.array(np.unravel_index(groups.reshape(-1), tuple(mesh.values()))).reshape(len(mesh), *groups.shape)
    varies = (places != places[:, :, :1]).any(axis=(1, 2))
    return tuple(axis for axis, here in zip(mesh, varies, strict=True) if here)


def _moved(program: Program, body: dict[str, Instruction], instruction: Instruction) -> float:
    """Bytes that one run of an instruction reads and writes."""
    opcode, here = instruction.opcode, lambda name: type_bytes(body[name].type, in_memory=True)
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    result = type_bytes(instruction.type, in_memory=True)
    if opcode == "dynamic-slice":
        return 2 * result
    if opcode == "dynamic-update-slice":
        return 2 * here(instruction.operands[1])
    if opcode.endswith("-start"):
        return result  # Both of its sides are in its type.
    if opcode != "fusion":
        return result + sum(here(name) for name in instruction.operands)
    inner = _called(program, instruction)
    if any("AsyncCollectiveDone" in part.attributes for part in inner.values()):
        return 0
    read = sum(min(_taken(program, inner, part.name), here(name)) for part, name in _bound(inner, instruction))
    return read + max(0, result - _left(inner))


def _called(program: Program, fusion: Instruction) -> dict[str, Instruction]:
    return program.computations[re.search(r"calls=%?([\w.\-]+)", fusion.attributes)[1]]


def _bound(inner: dict[str, Instruction], fusion: Instruction) -> list[tuple[Instruction, str]]:
    """The parameters of a fused kernel, each with the operand that it stands for."""
    parameters = sorted((part for part in inner.values() if part.opcode == "parameter"), key=lambda part: int(part.arguments))
    return list(zip(parameters, fusion.operands, strict=False))


def _taken(program: Program, inner: dict[str, Instruction], name: str) -> float:
    """Bytes that a fused kernel reads of one of its parameters."""
    total = 0.0
    for user in inner.values():
        if name not in user.operands or user.opcode == "tuple" or _chain(user):
            continue  # Of the last two: handed on, or under way beside the kernel; see `_left`.
        if user.opcode == "dynamic-slice":
            total += type_bytes(user.type)
        elif user.opcode == "bitcast":
            total += _taken(program, inner, user.name)
        elif user.opcode == "fusion":
            nested = _called(program, user)
            total += sum(_taken(program, nested, part.name) for part, operand in _bound(nested, user) if operand == name)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
            return math.inf
    return total


def _left(inner: dict[str, Instruction]) -> int:
    """Bytes of its results that a fused kernel leaves as they are: it updates them in place, or only hands them on."""
    root = next(part for part in inner.values() if part.root)
    left = 0
    for part in [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]:
        while part.opcode == "bitcast":
            part = inner[part.operands[0]]
        if root.opcode == "tuple" and (part.opcode == "parameter" or _chain(part)):
            left += type_bytes(part.type, in_memory=True)
        if part.opcode == "dynamic-update-slice":
            left += type_bytes(part.type) - type_bytes(inner[part.operands[1]].type)
    return left
