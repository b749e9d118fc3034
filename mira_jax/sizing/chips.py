"""Data of accelerators, and the topologies built from them."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from mira_jax.errors import UserError
from mira_jax.sizing.targets import TARGETS

GB, GIB = 10**9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip. Rates are peak values."""

    name: str
    flops: float
    """Dense bf16 matrix products, FLOP/s."""
    hbm: int
    """Bytes of memory available to a program."""
    hbm_rate: float
    """Memory bandwidth of the chip, bytes/s."""
    link_rate: float
    """Bytes/s that one chip sends to its neighbours over all links: half of the published bidirectional bandwidth."""
    dimensions: int = 1
    """Number of dimensions of the torus that connects the chips. `link_rate` is divided among them."""
    wraps_from: int = 0
    """Minimum length at which a dimension of the torus is a ring. A shorter dimension is a line, whose collectives take twice as long."""
    tpu: bool = True
    host: int = 0
    """GPUs: the number of them on one NVLink switch, which is that of one host."""
    network_rate: float = 0.0
    """GPUs: bytes/s that one of them sends to other hosts, through its own network card. 0: hosts are not joined."""


# Sources, read 2026-11-20: docs.cloud.google.com/tpu/docs/{v5p,v5e,v6e} (peak bf16, HBM, HBM bandwidth, bidirectional
# ICI bandwidth per chip: 1200, 400 and 800 GB/s; v5p is a torus from 4x4x4 on, v5e and v6e from 16 chips a side).
# GPUs: NVIDIA's data sheets of A100 SXM 80 GB, H100 SXM, H200 SXM, HGX B200, L40S and A10G (as sold by AWS), and the white paper of Ada
# Lovelace for the RTX 4090: bf16 with fp32 sums and without sparsity, half of NVLink's or PCIe's bandwidth of both ways. Networks: those of
# DGX A100 (200 Gb/s a GPU), DGX H100, H200 and B200 (400 Gb/s a GPU).
CHIPS = {
    "v5p": Chip("TPU v5p", 459e12, 95 * GIB, 2765e9, 600e9, dimensions=3, wraps_from=4),
    "v5e": Chip("TPU v5e", 197e12, 16 * GIB, 819e9, 200e9, dimensions=2, wraps_from=16),
    "v6e": Chip("TPU v6e", 918e12, 32 * GIB, 1638e9, 400e9, dimensions=2, wraps_from=16),
    "a100": Chip("NVIDIA A100", 312e12, 80 * GB, 2039e9, 300e9, tpu=False, host=8, network_rate=25e9),
    "h100": Chip("NVIDIA H100", 989e12, 80 * GB, 3350e9, 450e9, tpu=False, host=8, network_rate=50e9),
    "h200": Chip("NVIDIA H200", 989e12, 141 * GB, 4800e9, 450e9, tpu=False, host=8, network_rate=50e9),
    "b200": Chip("NVIDIA B200", 2250e12, 180 * GB, 7700e9, 900e9, tpu=False, host=8, network_rate=50e9),
    "l40s": Chip("NVIDIA L40S", 362e12, 48 * GB, 864e9, 32e9, tpu=False, host=8),
    "a10g": Chip("NVIDIA A10G", 70e12, 24 * GB, 600e9, 32e9, tpu=False, host=8),
    "rtx4090": Chip("NVIDIA RTX 4090", 165e12, 24 * GB, 1008e9, 32e9, tpu=False, host=8),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips in a grid, for example v5p:4x4x4. For GPUs, hosts and GPUs on each: h200:2x8, or h200:8 on one host."""

    chip: Chip
    shape: tuple[int, ...]
    name: str

    @property
    def kind(self) -> str:
        """A key of `CHIPS`."""
        return self.name.partition(":")[0]

    @property
    def platform(self) -> str:
        return "tpu" if self.chip.tpu else "gpu"

    @property
    def capability(self) -> str:
        """The compute capability of a GPU with a description in `TARGETS`. "" for others."""
        return "{}.{}".format(*TARGETS[self.kind].capability) if self.kind in TARGETS else ""

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def hosts(self) -> tuple[int, int]:
        """GPUs: the number of hosts, and of GPUs on each."""
        return math.prod(self.shape[:-1]), self.shape[-1]

    def rate(self, mesh: Mapping[str, int], axes: Sequence[str]) -> float:
        """Bytes/s that a chip can send in a collective over `axes` of `mesh`, whose devices are numbered in row-major order."""
        size = math.prod(mesh.get(axis, 1) for axis in axes)
        return self._torus_rate(size) if self.chip.tpu else self._switch_rate(mesh, axes, size)

    def _torus_rate(self, size: int) -> float:
        """Assumes that the chips of a group occupy as few dimensions of the torus as possible, the longest first."""
        per_dimension = self.chip.link_rate / self.chip.dimensions
        rate, held = 0.0, 1
        for length in sorted(self.shape, reverse=True):
            if held >= size:
                break
            # On a line, and between only two chips, one link carries what two links carry in a ring.
            rate += per_dimension * (1.0 if length >= self.chip.wraps_from and self._torus else 0.5)
            held *= length
        return rate or per_dimension

    def _switch_rate(self, mesh: Mapping[str, int], axes: Sequence[str], size: int) -> float:
        """Between hosts, one ring uses one network card. A group with several GPUs on each host has as many rings."""
        devices = np.arange(self.chips).reshape(tuple(mesh.values()))
        group = devices[tuple(slice(None) if axis in axes else 0 for axis in mesh)]
        hosts = len(np.unique(group // self.hosts[1]))
        return self.chip.link_rate if hosts == 1 else min(self.chip.link_rate, size // hosts * self.chip.network_rate)

    @property
    def _torus(self) -> bool:
        """On v5p, links form rings only if every dimension is a multiple of four (whole 4x4x4 cubes)."""
        return self.chip.dimensions < 3 or all(length % self.chip.wraps_from == 0 for length in self.shape)


def parse_topology(text: str) -> Topology:
    """Parses `KIND:SHAPE`, for example v5p:4x4x4, h200:8 or h200:2x8.

    Raises:
        UserError: the kind is unknown, or its chips are not available in this shape.
    """
    kind, _, shape = text.partition(":")
    if kind not in CHIPS:
        raise UserError(
            f"topology: {text!r} is not a known kind of chip; expected one of {', '.join(CHIPS)}, for example v5p:4x4x4 or h200:8"
        )
    chip = CHIPS[kind]
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5})*", shape):
        raise UserError(f"topology: {text!r} has no shape; expected for example v5p:4x4x4, v6e:16x16 or h200:8")
    sizes = tuple(int(size) for size in shape.split("x"))
    if not chip.tpu:
        _check_hosts(chip, kind, sizes, text)
    elif len(sizes) != chip.dimensions:
        hint = {3: "v5p:2x2x4", 2: f"{kind}:4x4"}[chip.dimensions]
        raise UserError(f"topology: {text!r} has {len(sizes)} dimensions; {chip.name} has {chip.dimensions}, for example {hint}")
    return Topology(chip, sizes, text)


def _check_hosts(chip: Chip, kind: str, sizes: tuple[int, ...], text: str) -> None:
    hosts, count = Topology(chip, sizes, text).hosts
    if len(sizes) > 2 or (hosts > 1 and not chip.network_rate):
        joined = f"hosts and GPUs, for example {kind}:2x8" if chip.network_rate else f"GPUs of one host, for example {kind}:{chip.host}"
        raise UserError(f"topology: {text!r}: the shape of {chip.name} is {joined}")
    if count > chip.host or (hosts > 1 and count < chip.host):
        several = f"; several hosts are full, for example {kind}:{max(2, -(-hosts * count // chip.host))}x{chip.host}"
        raise UserError(
            f"topology: {text!r} has {count} GPUs on a host; a host has up to {chip.host}{several if chip.network_rate else ''}"
        )
