"""Which tensor of a Hub folder is which parameter."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mira_jax.models.config import Gemma3Config
from mira_jax.models.weights import Name, transpose

TEXT_PREFIXES = ("language_model.model.", "model.language_model.", "model.", "")
"""Of text tensors: multimodal on the Hub, multimodal as transformers holds them, text-only, text-only without the head."""
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "base_model.model.": "PEFT",
}
"""Prefixes of modules saved from inside of a wrapper, which transformers does not read."""
ADAPTERS = (".lora_", ".base_layer.")
"""In names of tensors of adapters that were not merged."""
QUANTISED = (".qweight", ".qzeros", ".g_idx", ".absmax", ".SCB", ".weight_scale", ".weight_scale_inv", ".weight_packed", ".quant_state.")
"""In names that quantisers add to those of matrices: GPTQ, AWQ, bitsandbytes, fp8, compressed-tensors."""
TIED = ("lm_head.weight", "language_model.lm_head.weight")
"""The output matrix, where it is stored beside the embedding that it equals."""
_VISION = ("vision_tower.", "multi_modal_projector.")
_EMBEDDING = "embed_tokens.weight"


class TextTensor(NamedTuple):
    """One tensor of the text model on disk, and where it goes."""

    name: str
    """Without the prefix."""
    shape: tuple[int, ...]
    """On disk."""
    parameter: Name
    group: int | None
    """Its place along the leading axis of a scanned parameter."""

    @property
    def transposed(self) -> bool:
        """Matrices are (out, in) on disk and (in, out) here, with heads and head dim apart; the embedding is the same."""
        return len(self.shape) == 2 and self.name != _EMBEDDING

    def to_parameter(self, values: np.ndarray, into: np.ndarray) -> None:
        """Copies what is on disk to the parameter, or to its slice of a scanned one."""
        if self.transposed:
            transpose(values, into.reshape(values.shape[::-1]))
        else:
            into[...] = values

    def from_parameter(self, values: np.ndarray) -> np.ndarray:
        """What is to be on disk, from the parameter or its slice of a scanned one."""
        if not self.transposed:
            return values
        out = np.empty(self.shape, values.dtype)
        transpose(values.reshape(self.shape[::-1]), out)
        return out


def text_tensors(config: Gemma3Config) -> Iterator[TextTensor]:
    """All tensors of the text model, layer by layer."""
    d, n, k, h, f = config.width, config.query_heads, config.kv_heads, config.head_dim, config.mlp_width
    yield TextTensor(_EMBEDDING, (config.vocabulary_size, d), ("embedding",), None)
    yield TextTensor("norm.weight", (d,), ("norm", "scale"), None)
    in_block = {
        "input_layernorm": ((d,), ("pre_attention_norm", "scale")),
        "post_attention_layernorm": ((d,), ("post_attention_norm", "scale")),
        "pre_feedforward_layernorm": ((d,), ("pre_mlp_norm", "scale")),
        "post_feedforward_layernorm": ((d,), ("post_mlp_norm", "scale")),
        "self_attn.q_proj": ((n * h, d), ("attention", "query")),
        "self_attn.k_proj": ((k * h, d), ("attention", "key")),
        "self_attn.v_proj": ((k * h, d), ("attention", "value")),
        "self_attn.o_proj": ((d, n * h), ("attention", "output")),
        "self_attn.q_norm": ((h,), ("attention", "query_norm", "scale")),
        "self_attn.k_norm": ((h,), ("attention", "key_norm", "scale")),
        "mlp.gate_proj": ((f, d), ("mlp", "gate")),
        "mlp.up_proj": ((f, d), ("mlp", "up")),
        "mlp.down_proj": ((d, f), ("mlp", "down")),
    }
    for layer in range(config.layers):
        block, group = config.place(layer)
        for name, (shape, parameter) in in_block.items():
            yield TextTensor(f"layers.{layer}.{name}.weight", shape, (*block, *parameter), group)


def layer_of(name: str) -> int | None:
    """The layer that a tensor's name states."""
    found = re.search(r"(?:^|\.)layers\.(\d{1,9})\.", name)
    return int(found[1]) if found else None


def hub_name(name: str) -> str | None:
    """A vision tensor's name on the Hub, None for a tensor that is not of the vision tower or its projector."""
    name = name.removeprefix("model.")
    return name if name.startswith(_VISION) else None
