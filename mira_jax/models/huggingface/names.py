"""Maps the tensors of a Hub folder to parameters."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mira_jax.models.config import Gemma3Config
from mira_jax.models.weights import Name, transpose

TEXT_PREFIXES = ("language_model.model.", "model.language_model.", "model.", "")
"""Prefixes of text tensors: multimodal on the Hub, multimodal in transformers, text-only, text-only without the head."""
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "base_model.model.": "PEFT",
}
"""Prefixes from saving a module inside a wrapper. transformers does not read such names."""
ADAPTERS = (".lora_", ".base_layer.")
"""Parts of the names of adapter tensors that were not merged."""
QUANTISED = (".qweight", ".qzeros", ".g_idx", ".absmax", ".SCB", ".weight_scale", ".weight_scale_inv", ".weight_packed", ".quant_state.")
"""Suffixes that quantisers add to names of matrices: GPTQ, AWQ, bitsandbytes, fp8, compressed-tensors."""
TIED = ("lm_head.weight", "language_model.lm_head.weight")
"""The output matrix, if it is stored separately although it equals the embedding."""
_VISION = ("vision_tower.", "multi_modal_projector.")
_EMBEDDING = "embed_tokens.weight"


class TextTensor(NamedTuple):
    """A tensor of the text model on disk, and its parameter."""

    name: str
    """The name without the prefix."""
    shape: tuple[int, ...]
    """The shape on disk."""
    parameter: Name
    group: int | None
    """Its index along the leading axis of a scanned parameter."""

    @property
    def transposed(self) -> bool:
        """Matrices are (out, in) on disk and (in, out) here, with heads and head dim as separate axes. The embedding has the
        same layout in both."""
        return len(self.shape) == 2 and self.name != _EMBEDDING

    def to_parameter(self, values: np.ndarray, into: np.ndarray) -> None:
        """Copies the values on disk to the parameter, or to its slice of a scanned parameter."""
        if self.transposed:
            transpose(values, into.reshape(values.shape[::-1]))
        else:
            into[...] = values

    def from_parameter(self, values: np.ndarray) -> np.ndarray:
        """The values to store on disk, from the parameter or its slice of a scanned parameter."""
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
    """The layer number in a tensor's name."""
    found = re.search(r"(?:^|\.)layers\.(\d{1,9})\.", name)
    return int(found[1]) if found else None


def hub_name(name: str) -> str | None:
    """The name on the Hub of a tensor of the vision tower or projector, or None for other tensors."""
    name = name.removeprefix("model.")
    return name if name.startswith(_VISION) else None
