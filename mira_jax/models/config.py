"""The sizes of a Gemma3, read from and written to Hugging Face's config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mira_jax.errors import UserError

LOCAL = "sliding_attention"
GLOBAL = "full_attention"
PERIOD = 6
"""Five local layers, then a global one."""
SCAN_FROM = 12
"""Models of at least this many layers are scanned: their compile time must not grow with depth. Shallower ones
are unrolled, which is faster on CPU."""


@dataclasses.dataclass(frozen=True)
class Gemma3Config:
    """One Gemma3. Beside each size stands the letter that array shapes use for it."""

    vocabulary_size: int
    """V: rows of the embedding, which is also the output matrix."""
    width: int
    """D: of the residual stream."""
    layers: int
    query_heads: int
    """N."""
    kv_heads: int
    """K: each serves G = N / K query heads."""
    head_dim: int
    """H."""
    mlp_width: int
    """F."""
    window: int = 512
    """W: in a local layer token i sees tokens j with 0 <= i - j < W."""
    query_scale: float | None = None
    """Attention logits are divided by its square root (transformers: query_pre_attn_scalar). Default: head_dim."""
    layer_types: tuple[str, ...] | None = None
    """sliding_attention or full_attention, per layer. Default: every sixth is full."""
    rope_base_local: float = 10_000.0
    rope_base_global: float = 1_000_000.0
    rope_factor_global: float = 1.0
    """Positions are divided by it in global layers: 8 from 4B on."""
    max_positions: int = 32_768
    norm_eps: float = 1e-6
    scan_layers: bool | None = None
    """Stack the parameters of repeated layers and scan over them. Default: from 12 layers on."""

    def __post_init__(self):
        for name in ("vocabulary_size", "width", "layers", "query_heads", "kv_heads", "head_dim", "mlp_width", "window"):
            if getattr(self, name) < 1:
                raise UserError(f"model: {name} is {getattr(self, name)}; it must be at least 1")
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
        """(layers per group, groups): what is scanned. Layers past their product are the tail.

        A group is the shortest run of layer types that the layers repeat, so that every slot of it has one type.
        """
        if not self.scan_layers:
            return 0, 0
        types = self.layer_types
        period = next(p for p in range(1, self.layers + 1) if all(types[i] == types[i % p] for i in range(self.layers)))
        return period, self.layers // period

    def place(self, layer: int) -> tuple[tuple[str, int], int | None]:
        """Where a layer's parameters are: ("groups", slot) and its place along their leading axis, or ("tail", i) and None."""
        period, groups = self.grouping
        if layer < period * groups:
            return ("groups", layer % period), layer // period
        return ("tail", layer - period * groups), None

    @property
    def parameters(self) -> int:
        """How many numbers the text model has."""
        d, h = self.width, self.head_dim
        attention = d * h * (2 * self.query_heads + 2 * self.kv_heads) + 2 * h
        return self.vocabulary_size * d + self.layers * (attention + 3 * d * self.mlp_width + 4 * d) + d

    @classmethod
    def from_huggingface(cls, tree: Mapping[str, Any], source: str = "config.json") -> "Gemma3Config":
        """Reads config.json of a text-only or multimodal Gemma3, with the keys of transformers 4 or 5.

        Raises:
            UserError: another architecture, or a variant (softcaps, biases, other activations) that Gemma3 has not.
        """
        text = dict(tree.get("text_config") or tree)
        kind = text.get("model_type", tree.get("model_type"))
        if kind not in ("gemma3_text", "gemma3"):
            raise UserError(f"{source}: model_type is {kind!r}; expected gemma3_text or gemma3")
        get = {**_TRANSFORMERS_DEFAULTS, **{key: value for key, value in text.items() if value is not None}}
        for key, expected in _FIXED.items():
            if get.get(key, expected) != expected:
                raise UserError(f"{source}: {key} is {get[key]!r}; Gemma3 has {expected!r}")
        layers = get["num_hidden_layers"]
        pattern = get.get("sliding_window_pattern") or get.get("_sliding_window_pattern") or PERIOD
        types = get.get("layer_types") or [LOCAL if (layer + 1) % pattern else GLOBAL for layer in range(layers)]
        base_local, _ = _rope(get, LOCAL, get.get("rope_local_base_freq", 10_000.0), {}, source)
        base_global, factor = _rope(get, GLOBAL, get.get("rope_theta", 1_000_000.0), get.get("rope_scaling") or {}, source)
        return cls(
            vocabulary_size=get["vocab_size"],
            width=get["hidden_size"],
            layers=layers,
            query_heads=get["num_attention_heads"],
            kv_heads=get["num_key_value_heads"],
            head_dim=get["head_dim"],
            mlp_width=get["intermediate_size"],
            window=get["sliding_window"],
            query_scale=float(get["query_pre_attn_scalar"]),
            layer_types=tuple(types),
            rope_base_local=base_local,
            rope_base_global=base_global,
            rope_factor_global=factor,
            max_positions=get["max_position_embeddings"],
            norm_eps=get["rms_norm_eps"],
        )

    def to_huggingface(self) -> dict[str, Any]:
        """config.json of a text-only Gemma3, with the keys of transformers 4 and 5 side by side, so that both read it."""
        scaling = {"rope_type": "linear", "factor": self.rope_factor_global} if self.rope_factor_global != 1 else None
        query_scale = int(self.query_scale) if float(self.query_scale).is_integer() else self.query_scale
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
            "query_pre_attn_scalar": query_scale,
            "rope_theta": self.rope_base_global,
            "rope_local_base_freq": self.rope_base_local,
            "rope_scaling": scaling,
            "rope_parameters": {
                GLOBAL: {"rope_theta": self.rope_base_global, **(scaling or {"rope_type": "default"})},
                LOCAL: {"rope_theta": self.rope_base_local, "rope_type": "default"},
            },
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_eps,
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
        """The `sliding_window_pattern` that says the same as `layer_types`, if one does."""
        first = self.layer_types.index(GLOBAL) + 1 if GLOBAL in self.layer_types else max(PERIOD, self.layers + 1)
        types = tuple(LOCAL if (layer + 1) % first else GLOBAL for layer in range(self.layers))
        return first if types == self.layer_types else None


def _rope(get: Mapping[str, Any], kind: str, base: float, scaling: Mapping[str, Any], source: str) -> tuple[float, float]:
    """(base, factor) of one kind of layer: `rope_parameters` if there, else the older keys."""
    parameters = {"rope_theta": base, **scaling, **((get.get("rope_parameters") or {}).get(kind) or {})}
    rope_type = parameters.get("rope_type") or parameters.get("type") or "default"
    if rope_type not in ("default", "linear"):
        raise UserError(f"{source}: RoPE of type {rope_type!r} in {kind} layers; Gemma3 has default or linear")
    factor = float(parameters.get("factor") or 1.0) if rope_type == "linear" else 1.0
    if kind == LOCAL and factor != 1:
        raise UserError(f"{source}: RoPE of local layers is scaled by {factor}; Gemma3 scales global layers alone")
    return float(parameters["rope_theta"]), factor


_TRANSFORMERS_DEFAULTS = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
}
"""What transformers takes for a key that is left out, as the Hub's multimodal configs do."""

_FIXED = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "tie_word_embeddings": True,
}

PRESETS = {
    "270m": Gemma3Config(262_144, 640, 18, 4, 1, 256, 2048, window=512),
    "1b": Gemma3Config(262_144, 1152, 26, 4, 1, 256, 6912, window=512),
    "4b": Gemma3Config(262_208, 2560, 34, 8, 4, 256, 10_240, window=1024, rope_factor_global=8.0, max_positions=131_072),
    "12b": Gemma3Config(262_208, 3840, 48, 16, 8, 256, 15_360, window=1024, rope_factor_global=8.0, max_positions=131_072),
    "27b": Gemma3Config(
        262_208, 5376, 62, 32, 16, 128, 21_504, window=1024, query_scale=168.0, rope_factor_global=8.0, max_positions=131_072
    ),
}
"""Google's sizes, with the embedding rows of the Hugging Face checkpoints."""
