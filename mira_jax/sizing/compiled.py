"""Compiles a step for absent TPUs with the TPU compiler of libtpu, and reads the result."""

import dataclasses
import importlib.util
import os
import re
import time
from collections import Counter

import jax
from jax.experimental import topologies

from mira_jax.errors import UserError, first_line
from mira_jax.extras import install
from mira_jax.models import sharding
from mira_jax.models.sharding import MeshConfig
from mira_jax.sizing import hlo
from mira_jax.sizing.chips import GIB, Topology
from mira_jax.sizing.plan import Plan

LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
}
"""Stops libtpu from looking for TPUs and from warning that there are none."""
INSTALL = install("tpu")


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
    largest: list[str]
    """If the program does not fit: the compiler's list of its largest buffers."""
    seconds: float
    """Duration of the compilation."""


def compile_step(plan: Plan, topology: Topology, mesh_config: MeshConfig) -> Compiled:
    """Lowers and compiles the train step of `plan` for `topology`. Takes minutes and several GB of host memory.

    Raises:
        UserError: libtpu is missing or does not know the topology, or the mesh needs a different number of chips.
    """
    devices = tpu_devices(topology)
    mesh = sharding.make_mesh(mesh_config, devices)
    began = time.monotonic()
    try:
        program = plan.lower(mesh).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return read_exhausted(str(error), time.monotonic() - began)
    return _read(program, mesh, time.monotonic() - began)


def tpu_devices(topology: Topology) -> list[jax.Device]:
    """Devices to compile for. Raises the same UserErrors as `compile_step`."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"the TPU compiler is not installed: {INSTALL}; or set compile=false to get only the estimate")
    for name, value in LIBTPU.items():
        os.environ.setdefault(name, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology.name).devices)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise UserError(f"topology: libtpu makes no {topology.name}: {first_line(error)}") from None


def _read(program: jax.stages.Compiled, mesh: jax.sharding.Mesh, seconds: float) -> Compiled:
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
    return Compiled(True, peak, arguments, peak - arguments, hlo.memory_traffic(parsed), dict(by_axis), dict(by_kind), [], seconds)


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
    return Compiled(False, total, None, None, None, {}, {}, largest, seconds)
