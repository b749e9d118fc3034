"""What a prompt yields does not depend on how it is computed, nor in whose company."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mira_jax.models.config import LOCAL, Gemma3Config
from mira_jax.models.decoding import CHUNK, GPU_OPTIONS
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.sampler import Sampler, Sampling, Work, bucket

END = 7
WORDS = 90
"""The tokens that may be drawn, of a vocabulary of 96."""
CONFIG = Gemma3Config(
    96, width=32, layers=2, query_heads=2, kv_heads=1, head_dim=16, mlp_width=64, window=24,
    layer_types=("sliding_attention", "full_attention"),
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Gemma3:
    model = Gemma3(CONFIG, rngs=nnx.Rngs(0))
    model.norm.scale[...] = 2 * jax.random.normal(jax.random.key(1), (32,))
    return model


@pytest.fixture(scope="module")
def log_probs(model):
    """T x V by one uncached forward pass: row t is the distribution of token t+1."""
    forward = jax.jit(lambda tokens: jax.nn.log_softmax(model.logits(model(tokens))))

    def call(tokens: list[int]) -> np.ndarray:
        padded = np.zeros((1, 512), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(forward(padded))[0, : len(tokens)]

    return call


@pytest.fixture(scope="module")
def sampler(model) -> Sampler:
    return Sampler(model, (END,), rows=4, max_length=1024, words=WORDS)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(8, WORDS, length).tolist() for length in (30, 64, 100, 65, 120, 40)]


def insert(sampler: Sampler, prompt: list[int], sampling: Sampling, alternatives: bool = False) -> int:
    """The row of one prompt."""
    (row,) = sampler.insert([Work(prompt, sampling, alternatives)])
    return row


def run(sampler: Sampler, work: list[tuple[list[int], Sampling]], alternatives: bool = False):
    """Completes all work, rows refilled as they come free: [(tokens, log-probs)] and the largest number of rows at once."""
    sampler.reset()
    waiting, row_of, results, most = list(enumerate(work)), {}, [([], []) for _ in work], 0
    for _ in range(1000):
        while waiting and sampler.free_rows:
            index, (prompt, sampling) = waiting.pop(0)
            row_of[insert(sampler, prompt, sampling, alternatives)] = index
        if not row_of:
            return results, most
        most = max(most, len(row_of))
        chunk = sampler.advance(until_free=bool(waiting), alternatives=alternatives)
        for row, index in list(row_of.items()):
            results[index][0].extend(chunk.tokens[row, : chunk.count[row]].tolist())
            results[index][1].extend(chunk.log_probs[row, : chunk.count[row]].tolist())
            if not chunk.active[row]:
                sampler.release(row)
                del row_of[row]
    raise AssertionError("the sampler does not come to an end")


def test_greedy_tokens_are_the_argmax_of_a_full_forward_pass_at_every_step(sampler, prompts, log_probs):
    results, most = run(sampler, [(prompt, Sampling(21)) for prompt in prompts])
    assert most == 4
    for prompt, (tokens, values) in zip(prompts, results, strict=True):
        whole = log_probs(prompt + tokens)[len(prompt) - 1 : -1]
        np.testing.assert_array_equal(tokens, whole[:, :WORDS].argmax(-1))
        np.testing.assert_allclose(values, whole[:, :WORDS].max(-1), atol=1e-4)
        assert len(tokens) == 21 or tokens[-1] == END
        assert END not in tokens[:-1]
    assert any(len(set(tokens)) > 5 for tokens, _ in results), "the model says too little for this test to mean anything"


def test_rows_of_the_embedding_without_a_word_are_never_drawn_but_weigh_in_log_probs(sampler, prompts, log_probs):
    best = {}
    for prompt in prompts:
        ((tokens, values),) = run(sampler, [(prompt, Sampling(20))])[0]
        whole = log_probs(prompt + tokens)[len(prompt) - 1 : -1]
        best |= dict(enumerate(whole.argmax(-1).tolist(), len(best)))
        assert max(tokens) < WORDS
        np.testing.assert_allclose(values, np.take_along_axis(whole, np.array(tokens)[:, None], 1)[:, 0], atol=1e-4)
    assert max(best.values()) >= WORDS, "no such row was ever the most likely: the test shows nothing"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_prompt_yields_the_same_alone_and_among_others(sampler, prompts, temperature):
    work = [(prompt, Sampling(18, temperature, seed=index)) for index, prompt in enumerate(prompts)]
    together, _ = run(sampler, work)
    for index, item in enumerate(work):
        alone, _ = run(sampler, [item])
        assert alone[0] == together[index]
    backwards, _ = run(sampler, work[::-1])
    assert backwards[::-1] == together


def test_reported_log_probs_are_the_models_own_whatever_the_temperature(sampler, prompts, log_probs):
    prompt = prompts[0]
    ((tokens, values),) = run(sampler, [(prompt, Sampling(12, temperature=2.0, top_p=0.9, seed=5))])[0]
    whole = log_probs(prompt + tokens)[len(prompt) - 1 : -1]
    np.testing.assert_allclose(values, np.take_along_axis(whole, np.array(tokens)[:, None], 1)[:, 0], atol=1e-4)


def test_seeds_and_choices_draw_apart_and_again_the_same(sampler, prompts):
    work = [(prompts[0], Sampling(12, 1.0, seed=seed, choice=choice)) for seed in (1, 2) for choice in (0, 1)]
    first, second = run(sampler, work)[0], run(sampler, work)[0]
    assert first == second
    assert len({tuple(tokens) for tokens, _ in first}) == 4


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), [(1.0, 1.0, 0), (0.5, 1.0, 0), (1.5, 0.6, 0), (1.0, 1.0, 6), (1.5, 0.8, 9)])
def test_first_tokens_are_distributed_as_temperature_top_p_and_top_k_say(sampler, prompts, log_probs, temperature, top_p, top_k):
    prompt, count = prompts[0], 600
    logits = log_probs(prompt)[-1, :WORDS].astype(np.float64) / temperature
    expected = np.exp(logits)
    if top_k:
        expected[np.argsort(-expected)[top_k:]] = 0
    expected /= expected.sum()
    order = np.argsort(-expected)
    kept = order[: int(np.searchsorted(np.cumsum(expected[order]), top_p)) + 1] if top_p < 1 else order
    expected = np.where(np.isin(np.arange(WORDS), kept), expected, 0)
    expected /= expected.sum()
    results, _ = run(sampler, [(prompt, Sampling(1, temperature, top_p, seed, top_k=top_k)) for seed in range(count)])
    seen = np.bincount([tokens[0] for tokens, _ in results], minlength=WORDS)
    assert seen[expected == 0].sum() == 0
    # Pearson's chi-square over the tokens that are expected five times or more, the rest as one class: its mean is
    # the number of classes less one, and six standard deviations above that are allowed.
    often = expected * count >= 5
    observed, wanted = np.append(seen[often], seen[~often].sum()), np.append(expected[often], expected[~often].sum()) * count
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    degrees = len(wanted) - 1
    assert ((observed - wanted) ** 2 / wanted).sum() < degrees + 6 * np.sqrt(2 * degrees)


def test_alternatives_are_the_most_likely_tokens(sampler, prompts, log_probs):
    sampler.reset()
    prompt = prompts[1]
    row = insert(sampler, prompt, Sampling(3), alternatives=True)
    chunk = sampler.advance(alternatives=True)
    whole = log_probs(prompt + chunk.tokens[row, :3].tolist())[len(prompt) - 1 : -1]
    np.testing.assert_allclose(chunk.top_log_probs[row, :3], -np.sort(-whole[:, :WORDS], -1)[:, :20], atol=1e-4)
    assert chunk.top_ids[row, :3, 0].tolist() == chunk.tokens[row, :3].tolist()


def test_scores_are_the_log_softmax_at_the_prompts_own_tokens(sampler, prompts, log_probs):
    for prompt in prompts[:3]:
        scores = sampler.score(prompt, alternatives=True)
        whole = log_probs(prompt)
        np.testing.assert_allclose(scores.log_probs, [whole[t, token] for t, token in enumerate(prompt[1:])], atol=1e-4)
        assert scores.top_ids[:, 0].tolist() == whole[:-1, :WORDS].argmax(-1).tolist()


def test_a_row_that_outgrows_the_cache_makes_it_longer_for_all(sampler, prompts, log_probs):
    sampler.reset()
    short = insert(sampler, prompts[0], Sampling(20))
    first = sampler.advance(steps=3)
    length = sampler.length
    long = insert(sampler, prompts[1], Sampling(500))
    assert sampler.length > length
    tokens = first.tokens[short, : first.count[short]].tolist()
    while len(tokens) < 12:
        chunk = sampler.advance(steps=4)
        tokens += chunk.tokens[short, : chunk.count[short]].tolist()
    whole = log_probs(prompts[0] + tokens)[len(prompts[0]) - 1 : -1]
    np.testing.assert_array_equal(tokens, whole[:, :WORDS].argmax(-1))
    assert long != short


def test_a_waiting_prompt_is_let_in_when_a_row_ends(sampler, prompts):
    sampler.reset()
    insert(sampler, prompts[0], Sampling(3))
    insert(sampler, prompts[1], Sampling(40))
    assert sampler.advance(until_free=True).steps <= 2
    sampler.reset()
    insert(sampler, prompts[1], Sampling(40))
    chunk = sampler.advance(until_free=True)
    assert chunk.steps <= CHUNK and chunk.count.sum() == chunk.steps + 1


def test_buckets_are_few_and_at_most_a_third_longer_than_needed_beyond_the_first():
    assert [bucket(length) for length in (1, 64, 65, 200, 512, 513, 1100, 5000)] == [64, 64, 128, 256, 512, 640, 1280, 5120]
    assert len({bucket(length) for length in range(1, 32_769)}) == 8 + 6 * 4
    assert all(length <= bucket(length) < 1.34 * length for length in range(193, 32_769))


def test_scanned_layers_in_bfloat16_decode_as_one_forward_pass_does(prompts):
    config = dataclasses.replace(CONFIG, layers=3, layer_types=(*CONFIG.layer_types, LOCAL), scan_layers=True)
    model = Gemma3(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert model.groups and model.tail
    sampler = Sampler(model, (END,), rows=2, max_length=128)
    row = insert(sampler, prompts[0], Sampling(6))
    chunk = sampler.advance()
    tokens = prompts[0] + chunk.tokens[row, : chunk.count[row]].tolist()
    whole = jax.jit(lambda tokens: jax.nn.log_softmax(model.logits(model(tokens))))(jnp.array([tokens]))[0, len(prompts[0]) - 1 : -1]
    expected = np.take_along_axis(np.asarray(whole), np.array(tokens[len(prompts[0]) :])[:, None], 1)[:, 0]
    np.testing.assert_allclose(chunk.log_probs[row, : chunk.count[row]], expected, atol=0.1)


def test_xla_knows_the_options_for_gpus():
    """An unknown one would stop every server on a GPU. XLA checks names on any backend."""
    assert float(jax.jit(lambda x: x + 1, compiler_options=GPU_OPTIONS)(1.0)) == 2
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_unknown"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_unknown": 0})(1.0)
