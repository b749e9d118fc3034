"""How prompts are prefilled: in parts that are reused, once for equal prompts, in batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mira_jax.models.config import GLOBAL, LOCAL, Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.prefixes import PART
from mira_jax.models.sampler import Sampler, Sampling, Work, bucket

END = 7
WORDS = 90
CONFIG = Gemma3Config(
    96, width=32, layers=5, query_heads=4, kv_heads=2, head_dim=16, mlp_width=64, window=24, layer_types=(LOCAL, GLOBAL) * 2 + (LOCAL,),
    scan_layers=True,
)  # fmt: skip


def random_model(dtype) -> Gemma3:
    model = Gemma3(CONFIG, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype)
    model.norm.scale[...] = (2 * jax.random.normal(jax.random.key(1), (32,))).astype(dtype)
    return model


@pytest.fixture(scope="module")
def model() -> Gemma3:
    return random_model(jnp.float32)


def complete(sampler: Sampler, work: list[Work]) -> list[tuple[list[int], list[float], list[float]]]:
    """The completion of each prompt: tokens and both log-probabilities. All are prefilled together, and decoded together."""
    rows = sampler.insert(work)
    results = [([], [], []) for _ in rows]
    active = True
    while active:
        chunk = sampler.advance()
        for row, result in zip(rows, results, strict=True):
            for values, array in zip(result, (chunk.tokens, chunk.log_probs, chunk.sampling_log_probs), strict=True):
                values += array[row, : chunk.count[row]].tolist()
        active = bool(chunk.active.any())
    for row in rows:
        sampler.release(row)
    return results


def words(draw: np.random.Generator, length: int) -> list[int]:
    return draw.integers(8, WORDS, length).tolist()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_reused_prefix_changes_no_bit_of_what_is_drawn(dtype):
    sampler = Sampler(random_model(dtype), (END,), rows=2, max_length=1100, words=WORDS, prefix_bytes=2**24)
    draw = np.random.default_rng(3)
    head, other = words(draw, 2 * PART + 40), words(draw, 2 * PART)
    prompts = [head, head + words(draw, 300), head[: PART + 3] + words(draw, 90), head + words(draw, 1), head, other]
    work = [Work(prompt, Sampling(12, 1.0, top_p=0.9, seed=place)) for place, prompt in enumerate(prompts)]
    reused = [complete(sampler, [one]) for one in work]
    assert (sampler.prefixes.hits, sampler.prefixes.tokens) == (4, (2 + 1 + 2 + 2) * PART)
    assert len({tuple(tokens) for ((tokens, _, _),) in reused}) == len(work)
    for one, before in zip(work, reused, strict=True):
        sampler.reset()
        assert complete(sampler, [one]) == before
    assert sampler.prefixes.hits == 4


def test_a_prompt_that_is_read_in_parts_yields_what_one_forward_pass_says(model):
    sampler = Sampler(model, (END,), rows=1, max_length=1600, words=WORDS, prefix_bytes=2**24)
    draw = np.random.default_rng(4)
    forward = jax.jit(lambda tokens: jax.nn.log_softmax(model.logits(model(tokens))))
    head = words(draw, 700)
    for prompt in (head, head[:300] + words(draw, 1200), head + words(draw, 600)):
        ((tokens, log_probs, _),) = complete(sampler, [Work(prompt, Sampling(5))])
        padded = np.zeros((1, 1600), np.int32)
        padded[0, : len(prompt) + len(tokens)] = prompt + tokens
        expected = np.asarray(forward(padded))[0, len(prompt) - 1 : len(prompt) + len(tokens) - 1, :WORDS]
        assert tokens == expected.argmax(-1).tolist()
        np.testing.assert_allclose(log_probs, expected.max(-1), atol=1e-4)
    assert sampler.prefixes.tokens == PART + 2 * PART


def test_equal_prompts_are_prefilled_once_and_yield_the_same_as_each_alone(model):
    sampler = Sampler(model, (END,), rows=4, max_length=512, words=WORDS)
    draw = np.random.default_rng(5)
    prompt, other = words(draw, 130), words(draw, 130)
    assert sampler.is_batch([prompt] * 4) and not sampler.is_batch([prompt, other])
    work = [Work(prompt, Sampling(10, 1.0, choice=choice), alternatives=choice == 2) for choice in range(4)]
    together = complete(sampler, work)
    assert len({tuple(tokens) for tokens, _, _ in together}) == 4
    for one, expected in zip(work, together, strict=True):
        assert complete(sampler, [one]) == [expected]


def test_prompts_of_a_batch_yield_the_tokens_of_each_alone(model):
    alone, batches = (Sampler(model, (END,), rows=8, max_length=512, words=WORDS, prefill_tokens=limit) for limit in (0, 1024))
    draw = np.random.default_rng(6)
    prompts = [words(draw, length) for length in (130, 200, 110)]
    work = [Work(prompt, Sampling(15, 1.0, seed=place)) for place, prompt in enumerate([*prompts, prompts[1]])]
    assert batches.is_batch([one.prompt for one in work])
    for one, (tokens, log_probs, drawn_with) in zip(work, complete(batches, work), strict=True):
        ((expected_tokens, *expected),) = complete(alone, [one])
        assert tokens == expected_tokens
        np.testing.assert_allclose([log_probs, drawn_with], expected, atol=1e-5)


def test_a_batch_is_within_its_limit_and_pads_no_prompt_to_more_than_twice_its_bucket(model):
    sampler = Sampler(model, (END,), rows=8, max_length=512, words=WORDS, prefill_tokens=4 * bucket(200))
    prompts = [[place] * 200 for place in range(5)]
    assert sampler.is_batch(prompts[:4]) and not sampler.is_batch(prompts)
    assert sampler.is_batch([*prompts[:4], prompts[0]])  # equal to one that is there
    assert not sampler.is_batch([[1] * 257, *prompts[1:4]])  # padded to 320 each
    assert sampler.is_batch([[1] * 128, prompts[2]]) and not sampler.is_batch([[1] * 64, prompts[2]])


def test_other_weights_leave_nothing_of_the_old_ones(model):
    """A model of 12 billion parameters must not be held twice after a reload."""
    sampler = Sampler(random_model(jnp.float32), (END,), rows=2, max_length=512, words=WORDS)
    complete(sampler, [Work([9] * 30, Sampling(3))])
    before = {array.unsafe_buffer_pointer() for array in jax.live_arrays() if array.shape == (96, 32)}
    sampler.replace_weights(model)
    after = {array.unsafe_buffer_pointer() for array in jax.live_arrays() if array.shape == (96, 32)}
    assert len(before - after) == 1
