"""Chooses the implementation of attention for each kind of layer, and gives the reason."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from mira_jax.errors import ConfigError
from mira_jax.models.config import GLOBAL, LOCAL, Gemma3Config

Name = Literal["xla", "splash", "pallas", "cudnn"]
Choice = Literal["auto", "xla", "splash", "pallas", "cudnn"]
Setting = Choice | dict[Literal["local", "global"], Choice]
"""One choice, or one for each kind of layer. A kind that is not named has the choice auto.

xla: `mira_jax.models.attention`, on every backend. splash: on TPUs. pallas: on GPUs. cudnn: on GPUs, for rows without segment ids.
auto: splash or pallas where it can be used, otherwise xla."""
KINDS: dict[Literal["local", "global"], str] = {"local": LOCAL, "global": GLOBAL}
PLATFORMS: dict[Name, str] = {"splash": "tpu", "pallas": "gpu", "cudnn": "gpu"}
HEAD_DIMS: dict[Name, tuple[int, ...]] = {"splash": (64, 128, 256), "pallas": (64, 128, 256), "cudnn": (64, 128)}
"""The head dims that are tested. Of Gemma3, 27B has 128, and the smaller ones have 256."""
DTYPES: dict[Name, tuple[str, ...]] = {"splash": ("float32", "bfloat16"), "pallas": ("bfloat16",), "cudnn": ("bfloat16",)}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The implementation for one kind of layer."""

    name: Name = "xla"
    reason: str = dataclasses.field(default="", compare=False)
    interpret: bool = False
    """Runs a Pallas kernel on any backend, slowly. For tests."""
    capability: str = ""
    """pallas: the compute capability of the GPU that it is compiled for, for example 9.0. Default: that of the GPU of this process."""


Kernels = Mapping[str, Kernel]
"""By layer type: LOCAL, GLOBAL."""
XLA: Kernels = {LOCAL: Kernel(), GLOBAL: Kernel()}


def choose_kernels(
    setting: Setting,
    sizes: Gemma3Config,
    dtype: str,
    *,
    segments: bool = True,
    platform: str = "",
    capability: str = "",
    key: str = "model.attention",
) -> dict[str, Kernel]:
    """The implementation for each kind of layer of a model.

    Args:
        dtype: dtype of activations.
        segments: whether rows have segment ids, as all packed or padded rows do.
        platform: cpu, gpu or tpu. Default: that of this process.
        capability: compute capability of the GPU. Default: that of this process.
        key: the key of `setting` in messages.

    Raises:
        ConfigError: a named implementation cannot be used.
    """
    platform, dtype = platform or jax.default_backend(), jnp.dtype(dtype).name
    kernels = {}
    for kind, layer_type in KINDS.items():
        name = setting.get(kind, "auto") if isinstance(setting, dict) else setting
        if name == "auto":
            kernels[layer_type] = _auto(sizes.head_dim, dtype, platform)
        elif problem := _problem(name, sizes.head_dim, dtype, platform, segments):
            place = f"{key}.{kind}" if isinstance(setting, dict) else key
            raise ConfigError(place, f"{name} {problem}; set auto or xla")
        else:
            kernels[layer_type] = Kernel(name, "set")
    return {layer_type: dataclasses.replace(kernel, capability=capability) for layer_type, kernel in kernels.items()}


def describe_kernels(kernels: Kernels) -> str:
    """For example "attention: local splash (on tpu), global xla (set)"."""
    shown = []
    for kind, layer_type in KINDS.items():
        kernel = kernels[layer_type]
        shown.append(f"{kind} {kernel.name}" + (f" ({kernel.reason})" if kernel.reason else ""))
    return "attention: " + ", ".join(shown)


def _auto(head_dim: int, dtype: str, platform: str) -> Kernel:
    for name in ("splash", "pallas"):
        if PLATFORMS[name] == platform:
            problem = _problem(name, head_dim, dtype, platform, segments=True)
            return Kernel("xla", f"{name} {problem}") if problem else Kernel(name, f"on {platform}")
    return Kernel("xla", f"on {platform}")


def _problem(name: Name, head_dim: int, dtype: str, platform: str, segments: bool) -> str:
    """Why an implementation cannot be used. "" if it can."""
    if name == "xla":
        return ""
    if PLATFORMS[name] != platform:
        return f"runs on {PLATFORMS[name]}, and this is {platform}"
    if head_dim not in HEAD_DIMS[name]:
        return f"is tested with head dims {', '.join(map(str, HEAD_DIMS[name]))}, and this model has {head_dim}"
    if dtype not in DTYPES[name]:
        return f"takes activations in {' or '.join(DTYPES[name])}, not {dtype}"
    if name == "cudnn" and segments:
        return "takes no segment ids, which packed and padded rows have"
    return ""
