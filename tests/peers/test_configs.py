"""config.json as the newest and the oldest transformers that `peers` allows read it."""

import json

import pytest

transformers = pytest.importorskip("transformers")

from mira_jax.errors import UserError  # noqa: E402
from mira_jax.models.config import GLOBAL, LOCAL, PRESETS, Gemma3Config  # noqa: E402

FOUR = int(transformers.__version__.split(".")[0]) < 5
DEMO = Gemma3Config(1024, 128, 4, 4, 2, 32, 384, window=512, query_scale=8)
ODD = Gemma3Config(
    1024, 128, 3, 4, 2, 32, 384, layer_types=(GLOBAL, LOCAL, LOCAL), rope_base_local=2e4, rope_base_global=5e5, rope_factor_global=3.0
)


def opened(folder, tree):
    """The text model's config as transformers has it."""
    (folder / "config.json").write_text(json.dumps(tree))
    return transformers.AutoConfig.from_pretrained(folder).get_text_config()


def rope(config, kind):
    """(base, factor), where this transformers keeps them."""
    if not FOUR:
        its = config.rope_parameters[kind]
        return its["rope_theta"], its["factor"] if its["rope_type"] == "linear" else 1.0
    if kind == LOCAL:
        return config.rope_local_base_freq, 1.0
    return config.rope_theta, config.rope_scaling["factor"] if config.rope_scaling else 1.0


def values(config):
    return {
        "vocabulary_size": config.vocab_size,
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "query_heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "mlp_width": config.intermediate_size,
        "window": config.sliding_window,
        "query_scale": config.query_pre_attn_scalar,
        "layer_types": tuple(config.layer_types),
        "rope_base_local": rope(config, LOCAL)[0],
        "rope_base_global": rope(config, GLOBAL)[0],
        "rope_factor_global": rope(config, GLOBAL)[1],
        "max_positions": config.max_position_embeddings,
        "norm_eps": config.rms_norm_eps,
    }


def ours(config):
    return {name: value for name, value in vars(config).items() if name != "scan_layers"}


@pytest.mark.parametrize("inside", [False, True], ids=["text", "multimodal"])
@pytest.mark.parametrize("name", [*PRESETS, "demo", "odd"])
def test_what_we_write_is_read_alike(tmp_path, name, inside):
    config = {**PRESETS, "demo": DEMO, "odd": ODD}[name]
    text = {**config.to_huggingface(), "torch_dtype": "bfloat16"}
    tree = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}, "torch_dtype": "bfloat16"} if inside else text
    theirs = opened(tmp_path, tree)
    assert values(theirs) == ours(config)
    assert theirs.tie_word_embeddings and theirs.hidden_activation == "gelu_pytorch_tanh"
    assert str(theirs.dtype).removeprefix("torch.") == "bfloat16"
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (2, [1, 106], 0)


BASE = {**ODD.to_huggingface(), "rope_scaling": None}
BASE["rope_parameters"] = {GLOBAL: {"rope_type": "default", "rope_theta": 5e5}, LOCAL: {"rope_type": "default", "rope_theta": 2e4}}
LINEAR = {"rope_type": "linear", "factor": 8.0}
OLD = {"rope_parameters": None, "rope_scaling": LINEAR}
READ = {
    "as it is": {},
    "older keys": OLD,
    "a whole factor": {**OLD, "rope_scaling": {"rope_type": "linear", "factor": 8}},
    "a pattern": {"layer_types": None, "sliding_window_pattern": 2},
    "a pattern beside layer_types": {"sliding_window_pattern": 2, "_sliding_window_pattern": 6},
    "no bidirectional attention": {"use_bidirectional_attention": None},
    "a factor of no scaling": {
        "rope_parameters": {**BASE["rope_parameters"], GLOBAL: {"rope_theta": 5e5, "rope_type": "linear", "factor": 1.0}}
    },
}
REFUSED = {
    "a float": {"num_hidden_layers": 3.0, "layer_types": None},
    "a string": {"num_hidden_layers": "3", "layer_types": None},
    "layer_types a string": {"layer_types": "full_attention"},
    "too few layer_types": {"layer_types": [GLOBAL]},
    "unknown layer_types": {"layer_types": ["x"] * 3},
    "pattern null": {"layer_types": None, "sliding_window_pattern": None},
    "pattern 0": {"layer_types": None, "sliding_window_pattern": 0},
    "linear without a factor": {"rope_parameters": None, "rope_scaling": {"rope_type": "linear"}},
    "no model_type": {"model_type": None},
}


@pytest.mark.parametrize("change", READ.values(), ids=list(READ))
def test_what_we_read_they_read_alike(tmp_path, change):
    tree = {**BASE, **change}
    assert values(opened(tmp_path, tree)) == ours(Gemma3Config.from_huggingface(tree))


@pytest.mark.parametrize("change", REFUSED.values(), ids=list(REFUSED))
def test_what_they_refuse_we_refuse(tmp_path, change):
    tree = {key: value for key, value in {**BASE, **change}.items() if (key, value) != ("model_type", None)}
    with pytest.raises(UserError):
        Gemma3Config.from_huggingface(tree)
    with pytest.raises(Exception):  # noqa: B017 - each version has its own
        list(range(opened(tmp_path, tree).num_hidden_layers))


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        ({"rope_scaling": LINEAR}, 8.0, 8.0),
        ({"rope_theta": 7e5}, 7e5, 5e5),
        ({"rope_parameters": {GLOBAL: {**LINEAR, "rope_theta": 5e5}, LOCAL: {"rope_type": "default", "rope_theta": 2e4}}}, 1.0, 8.0),
    ],
)
def test_what_versions_read_differently_we_refuse(tmp_path, change, old, new):
    """Or what two keys say differently, of which they prefer one."""
    tree = {**BASE, **change}
    assert (old if FOUR else new) in rope(opened(tmp_path, tree), GLOBAL)
    with pytest.raises(UserError, match="make them equal"):
        Gemma3Config.from_huggingface(tree)
