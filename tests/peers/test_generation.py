"""A model that we trained, exported, says the same in transformers' `generate` as in our sampler."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mira_jax.data.examples import one_per_step  # noqa: E402
from mira_jax.data.packing import PackedBatches  # noqa: E402
from mira_jax.models import huggingface  # noqa: E402
from mira_jax.models.config import GLOBAL, LOCAL, Gemma3Config  # noqa: E402
from mira_jax.models.gemma3 import Gemma3  # noqa: E402
from mira_jax.models.sampler import Sampler, Sampling, Work  # noqa: E402
from mira_jax.training.log_probs import response_log_probs  # noqa: E402
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer  # noqa: E402

MOST = 40
"""Tokens of a completion."""


def count(start: int, stride: int) -> tuple[str, str]:
    """A prompt and its response, which go on for different lengths."""
    return f"{'now ' * (start % 4)}from {start} by {stride}:", "".join(f" {number}" for number in range(start, 40, stride))


TEXTS = [count(start, stride) for start in range(10, 36) for stride in (2, 3, 5)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer([prompt + response for prompt, response in TEXTS], path, 300, symbols=["from ", " by ", ":"])
    return Tokenizer(path)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Trained for seconds: it counts, more or less, and is sure of what it says."""
    config = Gemma3Config(
        tokenizer.vocabulary_size + 3, width=48, layers=3, query_heads=4, kv_heads=2, head_dim=16, mlp_width=96, window=8,
        query_scale=12.0, layer_types=(LOCAL, GLOBAL, LOCAL), rope_factor_global=8.0,
    )  # fmt: skip
    pairs = [([tokenizer.bos_id, *tokenizer.encode(prompt)], [*tokenizer.encode(response), tokenizer.eos_id]) for prompt, response in TEXTS]
    examples = one_per_step(
        tokens=np.concatenate([np.array(prompt + response, np.int32) for prompt, response in pairs]),
        starts=np.cumsum([0, *(len(prompt) + len(response) for prompt, response in pairs)]),
        prompt_lengths=np.array([len(prompt) for prompt, _ in pairs], np.int32),
    )
    batches = PackedBatches(examples, np.arange(len(pairs)), {}, row_length=128, rows=8, batches=200)
    model = Gemma3(config, rngs=nnx.Rngs(0))
    optimizer = optax.adam(5e-3)

    @jax.jit
    def step(model, state, batch):
        loss = lambda model: -response_log_probs(model, batch).sum() / batch["response_mask"].sum()  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(model), state)
        return optax.apply_updates(model, updates), state

    state = optimizer.init(model)
    for batch in batches:
        model, state = step(model, state, batch)
    return model


def ours(model, tokenizer, prompts):
    """Greedy completions, and by how many nats each token led the next most likely."""
    sampler = Sampler(model, (tokenizer.eos_id, tokenizer.end_of_turn_id), len(prompts), 128, tokenizer.vocabulary_size)
    work = [Work([tokenizer.bos_id, *tokenizer.encode(prompt)], Sampling(MOST), alternatives=True) for prompt in prompts]
    rows = [row for one in work for row in sampler.insert([one])]
    texts, leads, active = [[] for _ in prompts], [], True
    while active:
        chunk = sampler.advance(alternatives=True)
        for text, row in zip(texts, rows, strict=True):
            text += chunk.tokens[row, : chunk.count[row]].tolist()
            leads += (-np.diff(chunk.top_log_probs[row, : chunk.count[row], :2])).ravel().tolist()
        active = chunk.active[rows].any()
    return texts, leads


def test_generate_says_what_our_sampler_says(model, tokenizer, tmp_path):
    prompts = [count(start, stride)[0] for start, stride in ((10, 2), (33, 3), (27, 5), (19, 2), (35, 5))]
    texts, leads = ours(model, tokenizer, prompts)
    assert min(leads) > 1e-3, "a coin toss shows nothing"
    assert len({len(text) for text in texts}) > 2 and sum(text[-1] == tokenizer.eos_id for text in texts) > 2

    huggingface.save(model, tmp_path / "export", tokenizer.path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "export", padding_side="left")
    inputs = reader(prompts, return_tensors="pt", padding=True)
    assert (inputs["attention_mask"] == 0).any(), "rows of one length show nothing"
    for cache in ({}, {"cache_implementation": "static"}):
        out = theirs.generate(**inputs, max_new_tokens=MOST, do_sample=False, **cache)[:, inputs["input_ids"].shape[1] :]
        assert reader.batch_decode(out, skip_special_tokens=True) == [tokenizer.decode(text) for text in texts]
