"""Descriptions of GPUs, from which XLA's compiler generates programs for GPUs that are not present."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Target:
    """The properties of a GPU that XLA's compiler asks for. Memory is in bytes."""

    name: str
    capability: tuple[int, int]
    """CUDA compute capability."""
    processors: int
    """Streaming multiprocessors."""
    lanes: int
    """fp32 lanes of a multiprocessor."""
    clock: float
    """Highest clock rate in GHz."""
    memory: int
    """As the driver reports it, which is 5 to 7 % more than the GPU's nominal size."""
    memory_rate: int
    """Bytes/s."""
    cache: int
    """L2 cache."""
    shared: int
    """Shared memory of a multiprocessor. A block may use 1 KiB less."""

    def text(self) -> str:
        """The description in the text format of XLA's `GpuTargetConfigProto`."""
        major, minor = self.capability
        # The versions of cuDNN and CUDA are the oldest that know all of these GPUs.
        # Kernels for Hopper and Blackwell use instructions that only the very same architecture has (sm_90a, sm_100a).
        extension = " feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
        return f"""\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 * 1024}
  shared_memory_per_core: {self.shared}
  threads_per_core_limit: 2048
  core_count: {self.processors}
  fpus_per_core: {self.lanes}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  memory_bandwidth: {self.memory_rate}
  l2_cache_size: {self.cache}
  clock_rate_ghz: {self.clock}
  device_memory_size: {self.memory}
  shared_memory_per_block_optin: {self.shared - 1024}
  cuda_compute_capability {{ major: {major} minor: {minor}{extension} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "{self.name}"
"""


# Sources: the white papers of the architectures (A100, Hopper, Blackwell), the data sheets of the GPUs, and the compute capabilities in the
# CUDA C++ Programming Guide. Memory: what the driver reports, rounded down to whole GiB.
KIB, MIB, GIB = 2**10, 2**20, 2**30
TARGETS = {
    "a100": Target("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 1.41, 79 * GIB, 2_039_000_000_000, 40 * MIB, 164 * KIB),
    "h100": Target("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 79 * GIB, 3_352_000_000_000, 50 * MIB, 228 * KIB),
    "h200": Target("NVIDIA H200", (9, 0), 132, 128, 1.98, 139 * GIB, 4_800_000_000_000, 50 * MIB, 228 * KIB),
    "b200": Target("NVIDIA B200", (10, 0), 148, 128, 1.965, 178 * GIB, 7_700_000_000_000, 126 * MIB, 228 * KIB),
}
"""By kind of chip, as in `mira_jax.sizing.chips.CHIPS`."""
