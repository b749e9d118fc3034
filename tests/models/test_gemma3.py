import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from mira_jax.models import huggingface, lora
from mira_jax.models.config import GLOBAL, LOCAL, Gemma3Config
from mira_jax.models.gemma3 import Gemma3, RMSNorm, unscan
from mira_jax.models.heads import Critic
from mira_jax.training.log_probs import response_log_probs

TAIL = Path(__file__).parents[1] / "fixtures" / "gemma3" / "tail"
"""A checkpoint of 7 layers with what transformers makes of it (scripts/make_parity_fixtures.py)."""
TYPES = (LOCAL, LOCAL, GLOBAL) * 2 + (LOCAL,)


def small(scan_layers=False, **changes):
    sizes = {
        "vocabulary_size": 50,
        "width": 16,
        "layers": 7,
        "query_heads": 4,
        "kv_heads": 2,
        "head_dim": 6,
        "mlp_width": 24,
        "window": 5,
        "layer_types": TYPES,
    }
    return Gemma3Config(**{**sizes, **changes}, scan_layers=scan_layers)


@pytest.fixture(scope="module", params=[False, True], ids=["unrolled", "scanned"])
def model(request):
    return Gemma3(small(request.param), rngs=nnx.Rngs(0))


@jax.jit
def forward(model, *arguments):
    return model(*arguments)


def tokens_of(rows, length, seed=1):
    return jax.random.randint(jax.random.key(seed), (rows, length), 1, 50)


def test_norm_is_zero_centred_and_in_fp32():
    norm = RMSNorm((3,), 1e-6, jnp.float32)
    norm.scale[...] = jnp.array([0.0, 1.0, -1.0])
    out = norm(jnp.array([3.0, 4.0, 0.0]))
    rms = (25 / 3) ** 0.5
    np.testing.assert_allclose(out, [3 / rms, 8 / rms, 0], rtol=1e-5)
    assert norm(jnp.ones((3,), jnp.bfloat16)).dtype == jnp.bfloat16


def test_scanned_layers_have_a_leading_axis_and_the_tail_has_none():
    model = Gemma3(small(True), rngs=nnx.Rngs(0))
    assert [block.attention.layer_type for block in model.groups] == [LOCAL, LOCAL, GLOBAL]
    assert model.groups[0].mlp.gate[...].shape == (2, 16, 24)
    assert [block.mlp.gate[...].shape for block in model.tail] == [(16, 24)]


def test_layers_taken_apart_compute_what_the_scan_computes():
    """With adapters that are not 0, in bfloat16, and unchanged if there is nothing to take apart."""
    model = lora.adapt(Gemma3(small(True), rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16), lora.LoraConfig(rank=2), nnx.Rngs(1))
    for block in (*model.groups, *model.tail):
        block.attention.lora.query_b[...] = jax.random.normal(jax.random.key(2), block.attention.lora.query_b.shape)
    tokens = tokens_of(2, 20)
    expected, types = forward(model, tokens), model.config.layer_types
    assert unscan(model) is model and len(model.groups) == 0 and not model.config.scan_layers
    assert tuple(block.attention.layer_type for block in model.tail) == types
    np.testing.assert_allclose(forward(model, tokens), expected, atol=1e-5)
    before = jax.tree.leaves(model)
    assert all(one is other for one, other in zip(jax.tree.leaves(unscan(model)), before, strict=True))


def test_packed_examples_do_not_see_each_other(model):
    first, second = tokens_of(1, 9, seed=2), tokens_of(1, 12, seed=3)
    packed = jnp.concatenate([first, second, jnp.zeros((1, 3), jnp.int32)], axis=1)
    segments = jnp.array([[1] * 9 + [2] * 12 + [0] * 3])
    positions = jnp.array([[*range(9), *range(12), 0, 0, 0]])
    hidden = forward(model, packed, positions, segments)
    np.testing.assert_allclose(hidden[:, :9], forward(model, first), atol=1e-5)
    np.testing.assert_allclose(hidden[:, 9:21], forward(model, second), atol=1e-5)
    assert np.isfinite(hidden).all()


def test_no_token_sees_the_future(model):
    tokens = tokens_of(1, 20)
    changed = tokens.at[0, 13].set(tokens[0, 13] % 49 + 1)
    before, after = forward(model, tokens), forward(model, changed)
    np.testing.assert_array_equal(before[:, :13], after[:, :13])
    assert not np.allclose(before[:, 13:], after[:, 13:])


def test_chosen_tokens_get_what_all_tokens_get(model):
    tokens, index = tokens_of(2, 20), jnp.array([[3, 7, 19], [0, 5, 5]])
    segments = jnp.array([[1] * 6 + [2] * 14, [1] * 20])
    hidden = forward(model, tokens, None, segments)
    some = forward(model, tokens, None, segments, None, index)
    np.testing.assert_allclose(some, np.take_along_axis(np.asarray(hidden), index[..., None], 1), atol=1e-5)


def test_decoding_rows_of_different_length_equals_one_pass(model):
    tokens, lengths = tokens_of(3, 20), jnp.array([7, 4, 12])
    whole = forward(model, tokens)
    model = unscan(nnx.clone(model))
    mask = (jnp.arange(12) < lengths[:, None]).astype(jnp.int32)
    hidden, cache = forward(model, tokens[:, :12], None, mask, model.init_cache(3, 24))
    np.testing.assert_allclose(hidden[0, :7], whole[0, :7], atol=1e-5)
    for _ in range(6):
        at = cache.lengths_B
        hidden, cache = forward(model, jnp.take_along_axis(tokens, at[:, None], 1), None, None, cache)
        np.testing.assert_allclose(hidden[:, 0], whole[jnp.arange(3), at], atol=1e-5)
    np.testing.assert_array_equal(cache.lengths_B, [13, 10, 18])


def test_prefill_goes_on_from_a_cache(model):
    tokens = tokens_of(2, 20)
    whole = forward(model, tokens)
    model = unscan(nnx.clone(model))
    _, cache = forward(model, tokens[:, :8], None, None, model.init_cache(2, 32))
    mask = jnp.array([[1] * 9 + [0] * 3, [1] * 12])
    hidden, cache = forward(model, tokens[:, 8:], None, mask, cache)
    np.testing.assert_allclose(hidden[1], whole[1, 8:], atol=1e-5)
    np.testing.assert_array_equal(cache.lengths_B, [17, 20])
    hidden, _ = forward(model, tokens[:, 17:18], None, None, cache)
    np.testing.assert_allclose(hidden[0, 0], whole[0, 17], atol=1e-5)


def test_dtypes_of_activations_and_parameters_are_apart():
    model = Gemma3(small(), rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.float32)
    hidden = forward(model, tokens_of(1, 6))
    assert hidden.dtype == jnp.bfloat16
    assert model.logits(hidden).dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.float32)}


def test_a_new_critic_says_one_half_under_each_head():
    critic = Critic(small(), ("value", "potential"), rngs=nnx.Rngs(0))
    logits = forward(critic, tokens_of(2, 10), None, None, jnp.array([[3, 9, 0], [1, 2, 3]]))
    assert set(logits) == {"value", "potential"}
    np.testing.assert_array_equal(logits["value"], np.zeros((2, 3)))


@pytest.mark.parametrize("window", [1, 20, 21, 22])
def test_a_window_counts_the_token_itself_as_transformers_does(window, tmp_path):
    shutil.copytree(TAIL, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sliding_window": window}))
    model = huggingface.load(tmp_path / "model", scan_layers=True)
    expected = np.load(TAIL / "windows.npz")
    tokens = np.load(TAIL / "expected.npz")["tokens"]
    np.testing.assert_allclose(model.logits(forward(model, tokens)), expected[str(window)], atol=2e-4)
    assert (np.abs(expected["20"] - expected["21"])[:, -1] > 1e-3).any(), "the text is longer than a window of 20, by one"
    np.testing.assert_allclose(expected["21"], expected["22"], atol=1e-5)


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
def test_gradients_of_packed_responses_are_those_of_torch(scan_layers, tmp_path):
    """Two texts in one row, each of 9 tokens of prompt and 12 of response."""
    first, second = np.load(TAIL / "expected.npz")["tokens"]
    index = np.arange(8, 20)
    batch = {
        "tokens": np.concatenate([first[:-1], second[:-1], [0, 0]])[None],
        "segment_ids": np.array([[1] * 20 + [2] * 20 + [0, 0]]),
        "positions": np.array([[*range(20), *range(20), 0, 0]]),
        "response_index": np.concatenate([index, index + 20])[None],
        "response_targets": np.concatenate([first[9:], second[9:]])[None],
        "response_mask": np.ones((1, 24), np.float32),
    }
    model = huggingface.load(TAIL, scan_layers=scan_layers)
    gradients = jax.jit(jax.grad(lambda model, batch: response_log_probs(model, batch).sum()))(model, batch)
    huggingface.save(gradients, tmp_path / "gradients")  # by transformers' names
    ours, theirs = load_file(tmp_path / "gradients" / "model.safetensors"), np.load(TAIL / "gradients.npz")
    assert ours.keys() == set(theirs)
    for name, gradient in ours.items():
        assert np.linalg.norm(gradient - theirs[name]) < 1e-4 * np.linalg.norm(theirs[name]), name
