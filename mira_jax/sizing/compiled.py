"""Compiles a program for absent chips with their own compiler, XLA in libtpu or in JAX's CUDA plugin, and reads the result."""

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax

from mira_jax.models import sharding
from mira_jax.models.sharding import MeshConfig
from mira_jax.sizing import hlo, schedule
from mira_jax.sizing.chips import GIB, Topology
from mira_jax.sizing.devices import absent_devices
from mira_jax.sizing.inference import Inference
from mira_jax.sizing.plan import Plan
from mira_jax.sizing.schedule import Schedule

UNTIMED = {"xla_gpu_autotune_level": 0}
"""Without a GPU, no kernel can be timed. XLA then selects them by its cost model."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Figures of one step on one chip. If the program is too large for the chip, unavailable figures are None."""

    fits: bool
    peak: float
    """Peak memory in bytes. If the program is too large for the chip, the amount that the compiler reports as needed."""
    arguments: float | None
    """Bytes of state and batch."""
    temporaries: float | None
    """Bytes in addition to the arguments at the time of the peak, including the program itself."""
    hbm_bytes: float | None
    """Bytes moved between the chip and its memory in one step."""
    sent: dict[str, float]
    """Bytes that the chip sends in one step, by mesh axis. `data+fsdp` is a collective over both axes."""
    sent_by_kind: dict[str, float]
    """The same bytes, by kind of collective."""
    schedule: Schedule | None
    """GPUs: the time in the order of the program's schedule. The TPU compiler runs parts of a collective inside other kernels, and
    does not say how much each part sends."""
    largest: list[str]
    """If the program does not fit: the compiler's list of its largest buffers."""
    seconds: float
    """Duration of the compilation."""


def compile_step(plan: Plan, topology: Topology, mesh_config: MeshConfig) -> Compiled:
    """Lowers and compiles the train step of `plan` for `topology`. Takes minutes and several GB of host memory.

    Raises:
        UserError: the compiler is missing or does not know the topology, or the mesh needs a different number of chips.
    """
    mesh = sharding.make_mesh(mesh_config, absent_devices(topology))
    # With a sequence axis, the kernels compute parts of a row and the keys before them, which `kernel_flops` does not know.
    kernel_flops = plan.kernel_flops if mesh.shape["sequence"] == 1 else {}
    return compile_lowered(plan.lower(mesh), topology, mesh, kernel_flops)


def compile_inference(plan: Inference, topology: Topology) -> tuple[Compiled, ...]:
    """Compiles each program of `plan` for one chip of `topology`. Raises the same UserErrors as `compile_step`."""
    mesh = sharding.make_mesh(MeshConfig(), absent_devices(topology)[:1])
    return tuple(
        compile_lowered(program.lower(mesh), topology, mesh, program.kernel_flops, program.gpu_options) for program in plan.programs
    )


def compile_lowered(
    lowered: jax.stages.Lowered,
    topology: Topology,
    mesh: jax.sharding.Mesh,
    kernel_flops: Mapping[str, float] = MappingProxyType({}),
    gpu_options: Mapping[str, Any] = MappingProxyType({}),
) -> Compiled:
    """Compiles a program that was lowered for absent devices of `topology`, which `mesh` contains.

    Args:
        kernel_flops: from `flops.kernel_flops`.
        gpu_options: of XLA, if these are GPUs.
    """
    began = time.monotonic()
    try:
        program = lowered.compile(compiler_options=None if topology.chip.tpu else {**UNTIMED, **gpu_options})
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return read_exhausted(str(error), time.monotonic() - began)
    return _read(program, topology, mesh, kernel_flops, time.monotonic() - began)


def _read(
    program: jax.stages.Compiled, topology: Topology, mesh: jax.sharding.Mesh, kernel_flops: Mapping[str, float], seconds: float
) -> Compiled:
    memory = program.memory_analysis()
    # The peak includes arguments and results. `temp_size_in_bytes` is not used: it sums buffers that do not exist at the same
    # time, and exceeds the chip's memory for programs that the compiler accepts.
    arguments, peak = float(memory.argument_size_in_bytes), float(memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes)
    parsed = hlo.parse(program.as_text())
    by_axis: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    for collective in hlo.collectives(parsed, dict(mesh.shape)):
        by_axis["+".join(collective.axes)] += collective.bytes
        by_kind[collective.kind] += collective.bytes
    # XLA plans a program for a GPU whether or not it fits.
    fits = topology.chip.tpu or peak <= topology.chip.hbm
    chip, axes = topology.chip, dict(mesh.shape)
    order = None
    if not chip.tpu:
        order = schedule.follow(parsed, axes, lambda over: topology.rate(axes, over), chip.flops, chip.hbm_rate, kernel_flops)
    traffic = hlo.memory_traffic(parsed)
    return Compiled(fits, peak, arguments, peak - arguments, traffic, dict(by_axis), dict(by_kind), order, [], seconds)


def read_exhausted(message: str, seconds: float) -> Compiled:
    """Parses the compiler's message about a program that is too large."""
    used = re.search(r"Used ([\d.]+)([KMGT]) of", message) or re.search(r"\(([\d.]+)([KMGT])\) exceeds", message)
    total = float(used[1]) * {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}[used[2]] if used else float("nan")
    sizes = re.findall(r"Size: (\S+)", message)
    shapes = re.findall(r"Shape: (\S+)", message)
    operators = re.findall(r'Operator: op_(?:type|name)="([^"]*)"', message)
    largest = []
    for number, (size, shape) in enumerate(zip(sizes, shapes, strict=False)):
        largest.append(f"{size} {shape}" + (f" {operators[number]}" if number < len(operators) else ""))
    return Compiled(False, total, None, None, None, {}, {}, None, largest, seconds)
