"""Live comparison with transformers. Run by `make test-peers`."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from benchmarks import parity  # noqa: E402
from mira_jax.models import huggingface  # noqa: E402


def random_model(seed):
    """A Gemma3 of random sizes and random numbers."""
    draw = np.random.default_rng(seed)
    kv_heads = int(draw.integers(1, 3))
    heads = kv_heads * int(draw.integers(1, 4))
    layers = int(draw.integers(1, 15))
    rope = {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0} if draw.random() < 0.5 else {"rope_theta": 1e6, "rope_type": "default"}
    config = transformers.Gemma3TextConfig(
        vocab_size=int(draw.integers(40, 90)),
        hidden_size=heads * int(draw.integers(3, 9)),
        intermediate_size=int(draw.integers(10, 60)),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=2 * int(draw.integers(2, 9)),
        sliding_window=int(draw.integers(2, 40)),
        query_pre_attn_scalar=int(draw.integers(3, 30)),
        layer_types=[str(kind) for kind in draw.choice(["sliding_attention", "full_attention"], layers)],
        rope_parameters={"full_attention": rope, "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}},
        attn_implementation="eager",
    )
    return parity.random_model(config, seed)


def logits_of(model, tokens):
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(tokens).long()).logits.numpy()


@pytest.mark.parametrize("seed", range(6))
def test_logits_agree_both_ways(seed, tmp_path):
    theirs = random_model(seed)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = huggingface.load(tmp_path / "theirs")
    tokens = np.random.default_rng(seed).integers(3, 40, (2, 70)).astype(np.int32)
    logits = ours.logits(ours(jnp.asarray(tokens)))
    assert np.abs(logits - logits_of(theirs, tokens)).max() < 2e-4
    huggingface.save(ours, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager", dtype=torch.float32)
    assert type(again).__name__ == "Gemma3ForCausalLM"
    assert np.abs(logits - logits_of(again, tokens)).max() < 2e-4


def test_greedy_generation_agrees_with_the_cache_decode(tmp_path):
    theirs = random_model(2)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = huggingface.load(tmp_path / "theirs")
    prompt = np.random.default_rng(0).integers(3, 40, (1, 12)).astype(np.int32)
    expected = theirs.generate(torch.from_numpy(prompt).long(), max_new_tokens=16, min_new_tokens=16, do_sample=False)[0, 12:].tolist()
    hidden, cache = ours(jnp.asarray(prompt), cache=ours.init_cache(1, 32))
    produced = []
    for _ in range(16):
        logits = np.array(ours.logits(hidden[0, -1]))
        logits[1] = -np.inf  # min_new_tokens forbids the end.
        produced.append(int(logits.argmax()))
        hidden, cache = ours(jnp.asarray([[produced[-1]]]), cache=cache)
    assert produced == expected


def test_bfloat16_exports_open_as_what_they_say(tmp_path):
    random_model(4).save_pretrained(tmp_path / "theirs")
    huggingface.save(huggingface.load(tmp_path / "theirs"), tmp_path / "ours", dtype=jnp.bfloat16)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert again.dtype == torch.bfloat16
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "gemma3_text"
