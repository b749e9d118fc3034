"""Which collectives of a program for GPUs are exposed, because no kernel runs at the same time.

XLA's text lists the instructions of a scheduled program in the order in which they start. Kernels run one after another. A collective
that has a -start and a -done runs while the kernels between the two run. Every kernel is given the least time that it can take, and so
is every collective, which makes the time of the whole a lower bound for this schedule.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mira_jax.sizing import hlo
from mira_jax.sizing.flops import call_flops
from mira_jax.sizing.hlo import Collective, Instruction, Program


@dataclasses.dataclass(frozen=True)
class Schedule:
    seconds: float
    """Lower bound of one call of the program, in the order of its schedule."""
    waits: dict[str, float]
    """Seconds in which only a collective runs, by mesh axis as in `Compiled.sent`."""
    sent: dict[str, float]
    """The bytes that the chip sends in these seconds."""
    flops: float
    """FLOPs of all matrix products and kernels that were found in the program."""


def follow(
    program: Program,
    mesh: Mapping[str, int],
    rate: Callable[[tuple[str, ...]], float],
    flops_rate: float,
    hbm_rate: float,
    kernels: Mapping[str, float] = MappingProxyType({}),
) -> Schedule:
    """Follows the schedule of a program.

    Args:
        rate: bytes/s that a chip sends in a collective over these axes.
        flops_rate, hbm_rate: the peaks of the chip, FLOP/s and bytes/s.
        kernels: from `flops.kernel_flops`.
    """
    collectives = {found.instruction: found for found in hlo.collectives(program, mesh)}
    timeline = _Timeline(program, collectives, rate, flops_rate, hbm_rate, kernels)
    seconds = timeline.run(program.entry, 1)
    return Schedule(seconds, dict(timeline.waits), dict(timeline.sent), timeline.flops)


class _Timeline:
    def __init__(
        self,
        program: Program,
        collectives: Mapping[str, Collective],
        rate: Callable[[tuple[str, ...]], float],
        flops_rate: float,
        hbm_rate: float,
        kernels: Mapping[str, float],
    ):
        self._program, self._collectives, self._rate = program, collectives, rate
        self._flops_rate, self._hbm_rate, self._kernels = flops_rate, hbm_rate, kernels
        self.waits: defaultdict[str, float] = defaultdict(float)
        self.sent: defaultdict[str, float] = defaultdict(float)
        self.flops = 0.0

    def run(self, name: str, times: int) -> float:
        """Seconds of one run of a computation, which runs `times` times."""
        body = self._program.computations[name]
        now, links, ends = 0.0, defaultdict[str, float](float), dict[str, float]()
        for instruction in body.values():
            found = self._collectives.get(instruction.name)
            if found and instruction.opcode.endswith("-start"):
                axes = "+".join(found.axes)
                # Collectives over the same axes use the same links, one after another.
                ends[instruction.name] = links[axes] = max(now, links[axes]) + self._duration(found)
            elif instruction.opcode.endswith("-done") and instruction.operands[0] in ends:
                start = instruction.operands[0]
                now = max(now, self._wait(self._collectives[start], now, ends[start], times))
            elif found:
                now = self._wait(found, now, now + self._duration(found), times)
            else:
                now += self._kernel(body, instruction, times)
        return now

    def _duration(self, found: Collective) -> float:
        return found.bytes / found.count / self._rate(found.axes)

    def _wait(self, found: Collective, now: float, end: float, times: int) -> float:
        if end > now:
            axes = "+".join(found.axes)
            self.waits[axes] += times * (end - now)
            self.sent[axes] += times * (end - now) * self._rate(found.axes)
        return end

    def _kernel(self, body: dict[str, Instruction], instruction: Instruction, times: int) -> float:
        callees = dict(hlo.callees(instruction))
        if instruction.opcode == "while":
            turns = hlo.trip_count(self._program.computations, instruction)
            return turns * self.run(callees["body"], times * turns)
        if instruction.opcode == "call":
            return self.run(callees["to_apply"], times)
        if instruction.opcode == "conditional":
            return max(self.run(name, times) for key, name in hlo.callees(instruction) if key == "branch")
        if instruction.opcode.endswith(("-start", "-done")):
            return 0.0  # A copy that runs while kernels compute.
        flops = sum(_product_flops(body, part) for body, part in self._parts(body, instruction))
        flops += self._kernel_flops(body, instruction)
        self.flops += times * flops
        moving = hlo.bytes_moved(self._program, body, instruction) / self._hbm_rate
        return max(flops / self._flops_rate, moving)

    def _kernel_flops(self, body: dict[str, Instruction], instruction: Instruction) -> float:
        """FLOPs of a kernel of ours, whose first operand are the queries. 0 for other instructions."""
        if instruction.opcode != "custom-call" or not self._kernels:
            return 0.0
        if not (named := re.search(rf"\b(?:{'|'.join(self._kernels)})\b", instruction.attributes)):
            return 0.0
        return call_flops(named[0], hlo.shape(body[instruction.operands[0]].type), self._kernels)

    def _parts(self, body: dict[str, Instruction], instruction: Instruction) -> list[tuple[dict[str, Instruction], Instruction]]:
        """The instructions of a kernel, each with the computation that it is in."""
        if instruction.opcode != "fusion":
            return [(body, instruction)]
        found = []
        for _, name in hlo.callees(instruction):
            inner = self._program.computations[name]
            for part in inner.values():
                found += self._parts(inner, part)
        return found


def _product_flops(body: Mapping[str, Instruction], instruction: Instruction) -> float:
    """FLOPs of a matrix product. 0 for other instructions."""
    if instruction.opcode != "dot":
        return 0.0
    left = hlo.shape(body[instruction.operands[0]].type)
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    sizes = [left[int(axis)] for axis in contracted[1].split(",") if axis] if contracted else []
    return 2.0 * math.prod(hlo.shape(instruction.type)) * math.prod(sizes)
