"""The sizes of a Gemma3, read from and written to Hugging Face's config.json."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from mira_jax.errors import UserError

LOCAL = "sliding_attention"
GLOBAL = "full_attention"
PERIOD = 6
"""Five local layers, then a global one."""
SCAN_FROM = 12
"""Models with at least this many layers are scanned, so that compile time does not grow with depth. Smaller models are unrolled,
which is faster on CPU."""

_MOST = {
    "vocabulary_size": 2**24,
    "width": 2**20,
    "layers": 1000,
    "query_heads": 2**12,
    "kv_heads": 2**12,
    "head_dim": 2**16,
    "mlp_width": 2**24,
    "window": 2**31 - 1,
    "max_positions": 2**31 - 1,
}
"""Limits far above any Gemma3. A config of, for example, a million layers is refused before anything is allocated."""


@dataclasses.dataclass(frozen=True)
class Gemma3Config:
    """The sizes of one Gemma3. The docstring of each size gives the letter used in array shapes."""

    vocabulary_size: int
    """V: rows of the embedding, which is also the output matrix."""
    width: int
    """D: width of the residual stream."""
    layers: int
    """Number of layers."""
    query_heads: int
    """N: number of query heads."""
    kv_heads: int
    """K: number of kv heads. Each serves G = N / K query heads."""
    head_dim: int
    """H: dimension of a head."""
    mlp_width: int
    """F: width of the MLP."""
    window: int = 512
    """W: in a local layer token i sees tokens j with 0 <= i - j < W."""
    query_scale: float | None = None
    """Attention logits are divided by the square root of this value (transformers: query_pre_attn_scalar). Default: head_dim."""
    layer_types: tuple[str, ...] | None = None
    """sliding_attention or full_attention for each layer. Default: every sixth layer is full_attention."""
    rope_base_local: float = 10_000.0
    """Base of the rotary embedding in local layers."""
    rope_base_global: float = 1_000_000.0
    """Base of the rotary embedding in global layers."""
    rope_factor_global: float = 1.0
    """In global layers, positions are divided by this factor: 8 from 4B on."""
    max_positions: int = 32_768
    """Maximum number of tokens in a sequence."""
    norm_eps: float = 1e-6
    """Epsilon of RMSNorm, added to the mean square under the root."""
    scan_layers: bool | None = None
    """Stack the parameters of repeated layers and scan over them. Default: from 12 layers on."""

    def __post_init__(self):
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"model: {name} is {getattr(self, name)}; it must be from 1 to {most:,}")
        for name in ("query_scale", "rope_base_local", "rope_base_global", "rope_factor_global", "norm_eps"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise UserError(f"model: {name} is {getattr(self, name)}; it must be above 0")
        if self.query_heads % self.kv_heads:
            raise UserError(f"model: {self.query_heads} query heads can't share {self.kv_heads} kv heads evenly")
        if self.head_dim % 2:
            raise UserError(f"model: head_dim is {self.head_dim}; rotary embeddings need an even one")
        if self.layer_types is None:
            types = tuple(LOCAL if (layer + 1) % PERIOD else GLOBAL for layer in range(self.layers))
            object.__setattr__(self, "layer_types", types)
        else:
            object.__setattr__(self, "layer_types", tuple(self.layer_types))
        if len(self.layer_types) != self.layers:
            raise UserError(f"model: {len(self.layer_types)} layer_types for {self.layers} layers")
        if unknown := set(self.layer_types) - {LOCAL, GLOBAL}:
            raise UserError(f"model: unknown layer type {sorted(unknown)[0]!r}; expected {LOCAL} or {GLOBAL}")
        if self.query_scale is None:
            object.__setattr__(self, "query_scale", float(self.head_dim))
        if self.scan_layers is None:
            object.__setattr__(self, "scan_layers", self.layers >= SCAN_FROM)

    @property
    def grouping(self) -> tuple[int, int]:
        """(layers per group, groups) of the scan. Layers beyond their product form the tail.

        A group is the shortest repeating sequence of layer types, so that each slot of the group has one type.
        """
        if not self.scan_layers:
            return 0, 0
        types = self.layer_types
        period = next(p for p in range(1, self.layers + 1) if all(types[i] == types[i % p] for i in range(self.layers)))
        return period, self.layers // period

    def place(self, layer: int) -> tuple[tuple[str, int], int | None]:
        """Where a layer's parameters are stored: ("groups", slot) and the index along their leading axis, or ("tail", i) and None."""
        period, groups = self.grouping
        if layer < period * groups:
            return ("groups", layer % period), layer // period
        return ("tail", layer - period * groups), None

    @property
    def parameters(self) -> int:
        """Number of parameters of the text model."""
        d, h = self.width, self.head_dim
        attention = d * h * (2 * self.query_heads + 2 * self.kv_heads) + 2 * h
        return self.vocabulary_size * d + self.layers * (attention + 3 * d * self.mlp_width + 4 * d) + d

    @classmethod
    def from_huggingface(cls, tree: Mapping[str, Any], source: str = "config.json") -> "Gemma3Config":
        """Reads config.json of a text-only or multimodal Gemma3, with the keys of transformers 4 or 5 and in the same way as
        transformers.

        Raises:
            UserError: another architecture, a variant that is not implemented (softcaps, biases, other activations),
                quantised weights, a value of the wrong type or out of bounds, or keys that contradict each other and that
                versions of transformers read differently. The message names the key.
        """
        text = _text_part(tree, source)
        for key, allowed in _FIXED.items():
            value = text.get(key, allowed[0])
            if not any(type(value) is type(one) and value == one for one in allowed):
                raise UserError(f"{text.at(key)} is {_short(value)}; only {allowed[0]!r} is implemented")
        sizes = {field: text.size(key, default, _MOST[field]) for key, (field, default) in _SIZES.items()}
        base_local, factor_local = _rope(text, LOCAL, "rope_local_base_freq", 10_000.0)
        base_global, factor = _rope(text, GLOBAL, "rope_theta", 1_000_000.0)
        if factor_local != 1:
            raise UserError(f"{text.at('rope_parameters')}: {LOCAL} layers are scaled by {factor_local}; Gemma3 scales global layers only")
        return cls(
            **sizes,
            query_scale=text.positive("query_pre_attn_scalar", 256),
            layer_types=_layer_types(text, sizes["layers"]),
            rope_base_local=base_local,
            rope_base_global=base_global,
            rope_factor_global=factor,
            norm_eps=text.positive("rms_norm_eps", 1e-6),
        )

    def to_huggingface(self) -> dict[str, Any]:
        """config.json of a text-only Gemma3, with the keys of both transformers 4 and 5, so that either version can read it.

        Raises:
            UserError: transformers 5 would refuse these sizes.
        """
        scaling = {"rope_type": "linear", "factor": float(self.rope_factor_global)}
        if not float(self.query_scale).is_integer():
            raise UserError(f"model: query_scale is {self.query_scale}; transformers 5 reads whole numbers only")
        if self.width % self.query_heads:
            raise UserError(f"model: width {self.width} is not a multiple of {self.query_heads} query heads, as transformers 5 demands")
        return {
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "vocab_size": self.vocabulary_size,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.query_heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.mlp_width,
            "sliding_window": self.window,
            "layer_types": list(self.layer_types),
            **({"sliding_window_pattern": pattern} if (pattern := self._pattern()) else {}),
            "query_pre_attn_scalar": int(self.query_scale),
            "rope_theta": float(self.rope_base_global),
            "rope_local_base_freq": float(self.rope_base_local),
            "rope_scaling": scaling if self.rope_factor_global != 1 else None,
            # SGLang 0.5.13 requires the factor of global layers. Linear scaling by 1 has no effect.
            "rope_parameters": {
                GLOBAL: {"rope_theta": float(self.rope_base_global), **scaling},
                LOCAL: {"rope_theta": float(self.rope_base_local), "rope_type": "default"},
            },
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": float(self.norm_eps),
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            "use_cache": True,
            "pad_token_id": 0,
            "eos_token_id": [1, 106],
            "bos_token_id": 2,
        }

    def _pattern(self) -> int | None:
        """The `sliding_window_pattern` that is equivalent to `layer_types`, or None."""
        first = self.layer_types.index(GLOBAL) + 1 if GLOBAL in self.layer_types else max(PERIOD, self.layers + 1)
        types = tuple(LOCAL if (layer + 1) % first else GLOBAL for layer in range(self.layers))
        return first if types == self.layer_types else None


class _Text(dict):
    """The section of config.json for the text model, with its location."""

    def __init__(self, tree: Mapping[str, Any], where: str):
        super().__init__(tree)
        self._where = where

    def at(self, key: str) -> str:
        """The file and the full path of a key, for messages."""
        return f"{self._where}{key}"

    def size(self, key: str, default: int, most: int) -> int:
        value = self.get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise UserError(f"{self.at(key)} is {_short(value)}; expected a whole number from 1 to {most:,}")
        return value

    def positive(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise UserError(f"{self.at(key)} is {_short(value)}; expected a number above 0")
        return float(value)

    def part(self, key: str) -> "_Text":
        """The mapping at a key. Empty if the key is absent or null."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            raise UserError(f"{self.at(key)} is {_short(value)}; expected an object")
        return _Text(value or {}, f"{self.at(key)}.")


def _text_part(tree: Mapping[str, Any], source: str) -> _Text:
    whole = _Text(tree, f"{source}: ")
    kind = tree.get("model_type")
    if kind not in ("gemma3_text", "gemma3"):
        raise UserError(f"{whole.at('model_type')} is {_short(kind)}; expected gemma3_text or gemma3")
    text = whole.part("text_config")
    if kind == "gemma3_text" and text:
        raise UserError(f"{whole.at('text_config')} contradicts model_type gemma3_text, whose sizes are not inside it; expected gemma3")
    if kind == "gemma3" and not text:
        raise UserError(f"{whole.at('text_config')} is missing; expected the sizes of a gemma3 inside it")
    for key in (*_SIZES, *_OTHERS, *_FIXED) if text else ():
        if key in tree and (key not in text or tree[key] != text[key]):
            raise UserError(f"{whole.at(key)} differs from text_config.{key}, the only one that counts; remove the outer one")
    text = text or whole
    if text.get("model_type", "gemma3_text") not in ("gemma3_text", kind):
        raise UserError(f"{text.at('model_type')} is {_short(text['model_type'])}; expected gemma3_text")
    for part in (whole, text):
        for key in ("quantization_config", "compression_config"):
            if part.get(key):
                method = part.part(key).get("quant_method", "of an unknown method")
                raise UserError(f"{part.at(key)}: the weights are quantised ({_short(method)}); use the checkpoint that is not")
    return text


def _layer_types(text: _Text, layers: int) -> tuple[str, ...]:
    """`layer_types` if given, regardless of the pattern, as in transformers."""
    types = text.get("layer_types")
    if types is None:
        pattern = text.size("sliding_window_pattern", PERIOD, _MOST["layers"])
        # transformers writes the key with an underscore, and ignores it when reading.
        private = text.get("_sliding_window_pattern", pattern)
        if "sliding_window_pattern" not in text and private != pattern:
            raise UserError(f"{text.at('_sliding_window_pattern')} is {_short(private)}, not {pattern}; state layer_types")
        return tuple(LOCAL if (layer + 1) % pattern else GLOBAL for layer in range(layers))
    if not isinstance(types, list) or not set(map(str, types)) <= {LOCAL, GLOBAL}:
        raise UserError(f"{text.at('layer_types')} is {_short(types)}; expected a list of {LOCAL} and {GLOBAL}")
    if len(types) != layers:
        raise UserError(f"{text.at('layer_types')} has {len(types)} entries; num_hidden_layers is {layers}")
    return tuple(types)


def _rope(text: _Text, kind: str, base_key: str, default: float) -> tuple[float, float]:
    """(base, factor) for one kind of layer.

    transformers 4 reads `rope_theta`, `rope_local_base_freq` and `rope_scaling`, the last for global layers. transformers 5
    reads `rope_parameters`, and the older keys for values missing there. If both are present, they must agree.
    """
    parameters = text.part("rope_parameters")
    if parameters and not parameters.keys() & {LOCAL, GLOBAL}:
        raise UserError(f"{text.at('rope_parameters')} has neither {GLOBAL} nor {LOCAL}; expected both, each with its own values")
    new = parameters.part(kind)
    base = new.positive("rope_theta", text.positive(base_key, default))
    if base_key in text and base != text[base_key]:
        raise UserError(
            f"{text.at(base_key)} is {text[base_key]}, {new.at('rope_theta').removeprefix(text.at(''))} {base}; make them equal"
        )
    factor = _rope_factor(new)
    if kind == GLOBAL and "rope_scaling" in text:
        old = text.part("rope_scaling")
        old_factor = _rope_factor(old) or 1.0
        if factor not in (None, old_factor):
            raise UserError(
                f"{text.at('rope_scaling')} scales positions by {old_factor}, rope_parameters.{kind} by {factor}; make them equal"
            )
        factor = old_factor
    return base, factor or 1.0


def _rope_factor(parameters: _Text) -> float | None:
    """The factor that positions are divided by, or None if it is not specified."""
    rope_type = parameters.get("rope_type")
    if parameters.get("type", rope_type) != rope_type:
        raise UserError(f"{parameters.at('type')} is {_short(parameters['type'])}, rope_type {_short(rope_type)}; make them equal")
    if parameters.get("partial_rotary_factor", 1) != 1:
        raise UserError(f"{parameters.at('partial_rotary_factor')} is {_short(parameters['partial_rotary_factor'])}; only 1 is implemented")
    if rope_type == "linear":
        if "factor" not in parameters:
            raise UserError(f"{parameters.at('factor')} is missing; RoPE of type linear needs it")
        return parameters.positive("factor", 1.0)
    if rope_type not in (None, "default"):
        raise UserError(
            f"{parameters.at('rope_type')} is {_short(rope_type)}; RoPE of that type is not implemented, default and linear are"
        )
    return rope_type and 1.0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_SIZES = {
    "vocab_size": ("vocabulary_size", 262_208),
    "hidden_size": ("width", 2304),
    "intermediate_size": ("mlp_width", 9216),
    "num_hidden_layers": ("layers", 26),
    "num_attention_heads": ("query_heads", 8),
    "num_key_value_heads": ("kv_heads", 4),
    "head_dim": ("head_dim", 256),
    "sliding_window": ("window", 4096),
    "max_position_embeddings": ("max_positions", 131_072),
}
"""Key of config.json to our field and the default that both transformers 4.57 and 5.23 use for a missing key."""

_OTHERS = ("rope_theta", "rope_local_base_freq", "rope_scaling", "rope_parameters", "layer_types", "query_pre_attn_scalar", "rms_norm_eps")

_FIXED = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "use_bidirectional_attention": (False, None),
    "partial_rotary_factor": (1, 1.0, None),
}
"""The implemented values. The first is the default of transformers for a missing key."""

Preset = Literal["270m", "1b", "4b", "12b", "27b"]
PRESETS: dict[Preset, Gemma3Config] = {
    "270m": Gemma3Config(262_144, 640, 18, 4, 1, 256, 2048, window=512),
    "1b": Gemma3Config(262_144, 1152, 26, 4, 1, 256, 6912, window=512),
    "4b": Gemma3Config(262_208, 2560, 34, 8, 4, 256, 10_240, window=1024, rope_factor_global=8.0, max_positions=131_072),
    "12b": Gemma3Config(262_208, 3840, 48, 16, 8, 256, 15_360, window=1024, rope_factor_global=8.0, max_positions=131_072),
    "27b": Gemma3Config(
        262_208, 5376, 62, 32, 16, 128, 21_504, window=1024, query_scale=168.0, rope_factor_global=8.0, max_positions=131_072
    ),
}
"""Google's sizes, with the number of embedding rows of the Hugging Face checkpoints."""
