import dataclasses

import jax
import pytest
from flax import nnx

from mira_jax.errors import UserError
from mira_jax.models.config import GLOBAL, LOCAL, PRESETS, Gemma3Config
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
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}, "rope_parameters": None}, "RoPE of type 'yarn'"),
        ({"num_key_value_heads": 3}, "can't share 3 kv heads"),
    ],
)
def test_another_architecture_is_refused_by_name(change, message):
    with pytest.raises(UserError, match=message):
        Gemma3Config.from_huggingface({**PRESETS["270m"].to_huggingface(), **change})
