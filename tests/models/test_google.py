"""Google's release, made by hand from checkpoints and logits of transformers, and written by Orbax."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file

from mira_jax.errors import UserError
from mira_jax.models import google, weights

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gemma3"
NORMS = {
    "pre_attention_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_ffw_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn/_query_norm": "self_attn.q_norm",
    "attn/_key_norm": "self_attn.k_norm",
}


def release_of(name):
    """(flat tree as Google lays it out, what its shapes do not say) of one of the fixtures."""
    config = json.loads((FIXTURES / name / "config.json").read_text())
    hub = load_file(FIXTURES / name / "model.safetensors")
    n, k, h = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    tree = {
        "transformer/embedder": {"input_embedding": hub["model.embed_tokens.weight"]},
        "transformer/final_norm": {"scale": hub["model.norm.weight"]},
    }
    for layer in range(config["num_hidden_layers"]):
        of = lambda part, layer=layer: hub[f"model.layers.{layer}.{part}.weight"]  # noqa: E731
        heads = lambda part, count: np.stack([rows.T for rows in np.split(of(part), count)])  # noqa: B023, E731
        arrays = {
            "attn/q_einsum": heads("self_attn.q_proj", n),
            "attn/kv_einsum": np.stack([heads("self_attn.k_proj", k), heads("self_attn.v_proj", k)]),
            "attn/attn_vec_einsum": np.stack([columns.T for columns in np.split(of("self_attn.o_proj"), n, axis=1)]),
            "mlp/gating_einsum": np.stack([of("mlp.gate_proj"), of("mlp.up_proj")]),
            "mlp/linear": of("mlp.down_proj").T,
        }
        assert arrays["attn/q_einsum"].shape == (n, config["hidden_size"], h)
        tree.update({f"transformer/layer_{layer}/{part}": {"w": np.ascontiguousarray(array)} for part, array in arrays.items()})
        tree.update({f"transformer/layer_{layer}/{ours}": {"scale": of(theirs)} for ours, theirs in NORMS.items()})
    rope = config["rope_parameters"]["full_attention"]
    sizes = {
        "window": config["sliding_window"],
        "query_scale": config["query_pre_attn_scalar"],
        "rope_factor_global": rope.get("factor", 1.0),
        "layer_types": config["layer_types"],
    }
    return tree, sizes


@pytest.fixture
def write(tmp_path):
    def make(tree):
        ocp.PyTreeCheckpointer().save(tmp_path / "release", tree)
        return tmp_path / "release"

    return make


@pytest.mark.parametrize(("name", "scan_layers"), [("tail", True), ("scaled", False)])
def test_logits_equal_those_of_transformers(name, scan_layers, write):
    tree, sizes = release_of(name)
    folder = write(tree)
    assert google.is_release(folder) and not google.is_release(FIXTURES / name)
    model = weights.build(google.GoogleRelease(folder, sizes, scan_layers))
    expected = np.load(FIXTURES / name / "expected.npz")
    logits = model.logits(model(jnp.asarray(expected["tokens"])))
    assert np.abs(logits - expected["logits"]).max() < 2e-4


def test_nested_names_dtypes_and_vision_are_read_as_they_are(write):
    tree, sizes = release_of("bfloat16")
    nested = {}
    for path, arrays in tree.items():
        node = nested
        for part in path.split("/"):
            node = node.setdefault(part, {})
        node.update(arrays)
    nested["SigLiPFromPatches_0"] = {"siglip_encoder": {"embedding": {"kernel": np.ones((2, 3), np.float32)}}}
    nested["transformer"]["embedder"]["mm_input_projection"] = {"w": np.ones((2, 3), np.float32)}
    release = google.GoogleRelease(write(nested), sizes)
    assert {leaf.dtype for leaf in release.stored.values()} == {jnp.dtype(jnp.bfloat16)}
    hub = load_file(FIXTURES / "bfloat16" / "model.safetensors")
    np.testing.assert_array_equal(release.read(("tail", 1, "mlp", "up")), hub["model.layers.1.mlp.up_proj.weight"].T)


def test_links_out_of_the_release_are_refused(write, tmp_path):
    folder = write(release_of("tail")[0])
    (tmp_path / "secret").write_text("x")
    (folder / "d" / "link").symlink_to("../../secret")
    with pytest.raises(UserError, match=r"d/link: is a link to .*secret, outside of the model's folder"):
        google.is_release(folder)


def test_a_release_of_other_sizes_asks_for_what_shapes_do_not_say(write):
    folder = write(release_of("tail")[0])
    with pytest.raises(UserError, match=r"not one of Google's sizes .*sizes\.window"):
        google.GoogleRelease(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.pop("transformer/layer_3/mlp/linear"), r"array transformer/layer_3/mlp/linear/w is missing"),
        (lambda tree: tree.update({"transformer/layer_3/bias": {"w": np.zeros(2)}}), r"array transformer/layer_3/bias/w is surplus"),
        (
            lambda tree: tree.update({"transformer/layer_3/attn/_key_norm": {"scale": np.zeros(9)}}),
            r"array transformer/layer_3/attn/_key_norm/scale has shape \(9,\); the others say \(8,\)",
        ),
    ],
)
def test_missing_surplus_and_misshapen_arrays_are_named(change, message, write):
    tree, sizes = release_of("tail")
    change(tree)
    with pytest.raises(UserError, match=message):
        google.GoogleRelease(write(tree), sizes)


@pytest.mark.parametrize(
    ("layers", "width", "heads", "kv_heads", "head_dim", "mlp", "expected"),
    [
        (18, 640, 4, 1, 256, 2048, (512, 256, 1)),
        (26, 1152, 4, 1, 256, 6912, (512, 256, 1)),
        (34, 2560, 8, 4, 256, 10_240, (1024, 256, 8)),
        (48, 3840, 16, 8, 256, 15_360, (1024, 256, 8)),
        (62, 5376, 32, 16, 128, 21_504, (1024, 168, 8)),
    ],
)
def test_googles_own_sizes_are_known_by_their_shapes(layers, width, heads, kv_heads, head_dim, mlp, expected):
    shapes = {f"transformer/layer_{layer}/mlp/linear/w": (mlp, width) for layer in range(layers)}
    shapes["transformer/embedder/input_embedding"] = (262_144, width)
    shapes["transformer/layer_0/attn/q_einsum/w"] = (heads, width, head_dim)
    shapes["transformer/layer_0/attn/kv_einsum/w"] = (2, kv_heads, width, head_dim)
    config = google.sizes_of("release", shapes)
    assert (config.window, config.query_scale, config.rope_factor_global) == expected
    assert config.vocabulary_size == 262_144
