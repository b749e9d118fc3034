"""Accelerators that are not present, as JAX devices to compile for."""

import importlib.util
import os

import jax
from jax.experimental import topologies

from mira_jax.errors import UserError, first_line
from mira_jax.extras import install
from mira_jax.sizing.chips import Topology
from mira_jax.sizing.targets import TARGETS

LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
}
"""Stops libtpu from looking for TPUs and from warning that there are none."""
ESTIMATE = "set compile=false to get only the estimate"


def compiles(topology: Topology) -> bool:
    """Whether there is a compiler for these chips: for TPUs, and for GPUs with a description in `TARGETS`."""
    return topology.chip.tpu or topology.kind in TARGETS


def absent_devices(topology: Topology) -> list[jax.Device]:
    """Devices to compile for, in the order of the topology.

    Raises:
        UserError: the compiler is not installed or does not know the topology.
    """
    return _tpus(topology) if topology.chip.tpu else _gpus(topology)


def _tpus(topology: Topology) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"the TPU compiler is not installed: {install('tpu')}; or {ESTIMATE}")
    for name, value in LIBTPU.items():
        os.environ.setdefault(name, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology.name).devices)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise UserError(f"topology: libtpu makes no {topology.name}: {first_line(error)}") from None


def _gpus(topology: Topology) -> list[jax.Device]:
    hosts, count = topology.hosts
    try:
        # XLA's shape is hosts x processes on each x GPUs of each.
        shape = f"{hosts}x1x{count}"
        target = TARGETS[topology.kind].text()
        return list(topologies.get_topology_desc(platform="cuda", target_config=target, topology=shape).devices)
    except NotImplementedError:
        raise UserError(f"the GPU compiler is not installed: {install('cuda')}; or {ESTIMATE}") from None
