import dataclasses
from typing import get_args

import jax
import pytest
from flax import nnx

from mira_jax.errors import UserError
from mira_jax.models.config import GLOBAL, LOCAL, PRESETS, Gemma3Config, Preset
from mira_jax.models.gemma3 import Gemma3


@pytest.mark.parametrize(
    ("name", "billions", "embedding"),
    [("270m", 0.268, 0.168), ("1b", 1.000, 0.302), ("4b", 3.880, 0.671), ("12b", 11.766, 1.007), ("27b", 27.009, 1.409)],
)
def test_presets_have_the_published_parameter_counts(name, billions, embedding):
    config = PRESETS[name]
    leaves = jax.tree.leaves(nnx.eval_shape(lambda: Gemma3(config, rngs=nnx.Rngs(0))))
    count = sum(leaf.size for leaf in leaves)
    assert round(count / 1e9, 3) == billions
    assert count == config.parameters
    assert round(262_144 * config.width / 1e9, 3) == embedding


def test_every_sixth_layer_is_global_and_the_rest_is_the_tail():
    config = PRESETS["1b"]
    assert [i for i, kind in enumerate(config.layer_types) if kind == GLOBAL] == [5, 11, 17, 23]
    assert config.grouping == (6, 4)
    assert PRESETS["12b"].grouping == (6, 8)
    assert dataclasses.replace(config, layers=7, layer_types=None, scan_layers=None).grouping == (0, 0)


def test_a_group_is_the_shortest_run_that_repeats():
    config = Gemma3Config(10, 8, 5, 2, 1, 4, 8, layer_types=(LOCAL, GLOBAL, LOCAL, GLOBAL, LOCAL), scan_layers=True)
    assert config.grouping == (2, 2)


@pytest.mark.parametrize("name", list(PRESETS))
def test_huggingface_config_reads_back(name):
    assert Gemma3Config.from_huggingface(PRESETS[name].to_huggingface()) == PRESETS[name]


def test_reads_the_keys_of_transformers_4_and_5_alike():
    common = {"model_type": "gemma3_text", "num_hidden_layers": 4, "hidden_size": 2560, "intermediate_size": 10240, "sliding_window": 1024}
    old = {**common, "rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    old |= {"sliding_window_pattern": 2}
    new = {**common, "layer_types": [LOCAL, GLOBAL, LOCAL, GLOBAL]}
    new["rope_parameters"] = {
        GLOBAL: {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0},
        LOCAL: {"rope_theta": 2e4, "rope_type": "default"},
    }
    config = Gemma3Config.from_huggingface(old)
    assert config == Gemma3Config.from_huggingface(new)
    assert (config.rope_base_global, config.rope_base_local, config.rope_factor_global) == (5e5, 2e4, 8.0)
    assert (config.query_heads, config.kv_heads, config.head_dim, config.vocabulary_size) == (8, 4, 256, 262_208)


def test_reads_the_text_config_of_a_multimodal_model_as_the_hub_has_it():
    text = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34}
    text |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
    assert Gemma3Config.from_huggingface({"model_type": "gemma3", "text_config": text, "vision_config": {}}) == PRESETS["4b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"hidden_activation": "gelu"}, "hidden_activation is 'gelu'"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}, "rope_parameters": None}, "rope_scaling.rope_type is .yarn."),
        ({"num_key_value_heads": 3}, "can't share 3 kv heads"),
    ],
)
def test_another_architecture_is_refused_by_name(change, message):
    with pytest.raises(UserError, match=message):
        Gemma3Config.from_huggingface({**PRESETS["270m"].to_huggingface(), **change})


BASE = {**PRESETS["270m"].to_huggingface(), "num_hidden_layers": 4, "layer_types": [LOCAL, GLOBAL, LOCAL, GLOBAL]}
OLD = {key: value for key, value in BASE.items() if key not in ("rope_parameters", "layer_types", "sliding_window_pattern")}
NEW = {key: value for key, value in BASE.items() if key not in ("rope_theta", "rope_local_base_freq", "rope_scaling")}
LINEAR = {"rope_type": "linear", "factor": 8.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": "4"}, "num_hidden_layers is '4'; expected a whole number from 1 to 1,000"),
        ({"num_hidden_layers": 4.0}, "num_hidden_layers is 4.0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": 10**6, "layer_types": None}, "num_hidden_layers is 1000000"),
        ({"num_hidden_layers": 0, "layer_types": []}, "num_hidden_layers is 0"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({"hidden_size": 10**30}, "hidden_size is 1"),
        ({"hidden_size": [640]}, r"hidden_size is \[640\]"),
        ({"head_dim": None}, "head_dim is None"),
        ({"sliding_window": None}, "sliding_window is None"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan; expected a number above 0"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'"),
        ({"query_pre_attn_scalar": float("inf")}, "query_pre_attn_scalar is inf"),
        ({"rope_theta": 0}, "rope_theta is 0"),
        ({"rope_theta": "1e6"}, "rope_theta is '1e6'"),
        ({"layer_types": GLOBAL}, "layer_types is 'full_attention'; expected a list"),
        ({"layer_types": [GLOBAL]}, "layer_types has 1 entries; num_hidden_layers is 4"),
        ({"layer_types": ["chunked_attention"] * 4}, "layer_types is .*expected a list of"),
        ({"layer_types": [{}] * 4}, "layer_types is .*expected a list of"),
        ({"layer_types": None, "sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
        ({"rope_scaling": LINEAR}, r"rope_scaling scales positions by 8.0, rope_parameters.full_attention by 1.0"),
        ({"rope_theta": 5e5}, r"rope_theta is 500000.0, rope_parameters.full_attention.rope_theta 1000000.0"),
        ({"rope_local_base_freq": 5e4}, r"rope_local_base_freq is 50000.0, rope_parameters.sliding_attention.rope_theta 10000.0"),
        ({"rope_parameters": 5}, "rope_parameters is 5; expected an object"),
        ({"rope_parameters": {**LINEAR, "rope_theta": 1e6}}, "rope_parameters has neither full_attention nor sliding_attention"),
        ({"rope_parameters": {GLOBAL: [], LOCAL: {}}}, r"rope_parameters.full_attention is \[\]; expected an object"),
        ({"rope_parameters": {LOCAL: LINEAR}}, "rope_parameters: sliding_attention layers are scaled by 8.0"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 8.0}}, "rope_scaling.type is 'linear', rope_type None"),
        ({"rope_parameters": None, "rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor is missing"),
        ({"rope_parameters": None, "rope_scaling": {**LINEAR, "factor": "8"}}, "rope_scaling.factor is '8'"),
        ({"rope_parameters": None, "rope_scaling": []}, r"rope_scaling is \[\]; expected an object"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"attention_bias": "false"}, "attention_bias is 'false'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ({"hidden_activation": None}, "hidden_activation is None"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ({"model_type": ["gemma3_text"]}, "model_type is "),
        ({"model_type": "gemma3"}, "text_config is missing"),
        ({"model_type": "gemma3n_text"}, "model_type is 'gemma3n_text'"),
        ({"text_config": {"hidden_size": 640}}, "text_config contradicts model_type gemma3_text"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantization_config: the weights are quantised \('gptq'\)"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config: the weights are quantised"),
    ],
)
def test_what_transformers_refuses_or_its_versions_read_differently_is_refused_by_key(change, message):
    """The verdicts of both are compared with ours in tests/peers/test_configs.py."""
    with pytest.raises(UserError, match=f"^config.json: {message}"):
        Gemma3Config.from_huggingface({**BASE, **change})
    inside = {"model_type": "gemma3", "text_config": {**BASE, **change}}
    if not set(change) & {"model_type", "text_config"}:
        with pytest.raises(UserError, match=r"^config.json: text_config\."):
            Gemma3Config.from_huggingface(inside)


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_size", 99), ("rope_theta", 5.0), ("attention_bias", True), ("layer_types", [LOCAL] * 4)]
)
def test_keys_outside_of_the_text_config_must_agree_with_those_inside(key, value):
    Gemma3Config.from_huggingface({"model_type": "gemma3", "text_config": BASE, key: BASE[key]})
    inside = {name: its for name, its in BASE.items() if name != key}
    for text in (BASE, inside):
        with pytest.raises(UserError, match=f"{key} differs from text_config.{key}"):
            Gemma3Config.from_huggingface({"model_type": "gemma3", "text_config": text, key: value})


def test_a_pattern_is_read_under_the_name_that_transformers_reads():
    pattern = {**OLD, "sliding_window_pattern": 2, "_sliding_window_pattern": 6}
    assert Gemma3Config.from_huggingface(pattern).layer_types == (LOCAL, GLOBAL, LOCAL, GLOBAL)
    with pytest.raises(UserError, match="_sliding_window_pattern is 2, not 6; state layer_types"):
        Gemma3Config.from_huggingface({**OLD, "_sliding_window_pattern": 2})
    assert Gemma3Config.from_huggingface({**BASE, "sliding_window_pattern": 3}).layer_types == (LOCAL, GLOBAL, LOCAL, GLOBAL)


def test_what_is_not_said_in_one_place_is_taken_from_the_other():
    """As transformers 5 reads it; transformers 4 reads the older keys only."""
    config = Gemma3Config.from_huggingface({**NEW, "rope_theta": 5e5, "rope_parameters": {GLOBAL: LINEAR}})
    assert (config.rope_base_global, config.rope_factor_global, config.rope_base_local) == (5e5, 8.0, 1e4)
    config = Gemma3Config.from_huggingface({**NEW, "rope_scaling": LINEAR, "rope_parameters": {GLOBAL: {"rope_theta": 7e5}}})
    assert (config.rope_base_global, config.rope_factor_global) == (7e5, 8.0)


def test_sizes_that_transformers_5_refuses_are_not_written():
    with pytest.raises(UserError, match="width 9 is not a multiple of 2 query heads"):
        Gemma3Config(20, 9, 1, 2, 1, 4, 8).to_huggingface()
    with pytest.raises(UserError, match=r"query_scale is 8\.5; transformers 5 reads whole numbers"):
        Gemma3Config(20, 8, 1, 2, 1, 4, 8, query_scale=8.5).to_huggingface()


@pytest.mark.parametrize(("field", "value"), [("layers", 10**6), ("norm_eps", float("nan")), ("rope_base_global", 0.0), ("window", 0)])
def test_sizes_have_bounds(field, value):
    with pytest.raises(UserError, match=f"model: {field} is "):
        dataclasses.replace(PRESETS["270m"], **{field: value, "layer_types": None})


def test_the_presets_are_those_that_a_config_may_name():
    assert tuple(PRESETS) == get_args(Preset)
