"""POST /reload: other weights without a restart, seen by the official client; what does not fit changes nothing."""

import contextlib
import threading

import httpx
import jax
import numpy as np
import openai
import pytest
from flax import nnx

from mira_jax.errors import UserError
from mira_jax.models.sampler import Sampler, Sampling
from mira_jax.serving.app import make_app
from mira_jax.serving.engine import Engine, Job
from mira_jax.serving.protocol import Served
from mira_jax.serving.server import Server, bind

PROMPT = [2, 5, 6, 7, 8]


@pytest.fixture
def other(model):
    """The same architecture with other weights."""
    changed = nnx.clone(model)
    changed.norm.scale[...] = 2 * jax.random.normal(jax.random.key(9), (32,))
    return changed


@contextlib.contextmanager
def served(model, tokenizer, load):
    engine = Engine(Sampler(model, (tokenizer.eos_id, tokenizer.end_of_turn_id), rows=2, max_length=512), tokenizer, fingerprint="old")
    server = Server(make_app(engine, Served("tiny", "old", "float32"), load), bind("127.0.0.1", 0))
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield server.url, client, engine
    server.stop()
    engine.close()


def drawn(client, seed=1):
    made = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=12, temperature=1, seed=seed, logprobs=0, extra_body={"return_token_ids": True}
    )
    return made.system_fingerprint, made.choices[0].token_ids, made.choices[0].logprobs.token_logprobs


def by_hand(model, tokens):
    """log p of the tokens after the prompt."""
    log_probs = jax.nn.log_softmax(model.logits(model(np.array([[*PROMPT, *tokens]]))))[0]
    return [float(log_probs[len(PROMPT) - 1 + place, token]) for place, token in enumerate(tokens)]


def test_the_newest_weights_are_used_and_named(model, other, tokenizer):
    with served(model, tokenizer, lambda: (other, "new")) as (url, client, _):
        name, tokens, log_probs = drawn(client)
        assert name == "old"
        np.testing.assert_allclose(log_probs, by_hand(model, tokens), atol=1e-5)
        answer = httpx.post(f"{url}/reload", timeout=60)
        assert answer.status_code == 200 and answer.json()["fingerprint"] == "new"
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["fingerprint"] == "new"
        name, tokens, log_probs = drawn(client)
        assert name == "new"
        # The prefix cache holds nothing of the old weights.
        np.testing.assert_allclose(log_probs, by_hand(other, tokens), atol=1e-5)


def test_completions_in_progress_end_with_the_old_weights(model, other, tokenizer):
    with served(model, tokenizer, lambda: (other, "new")) as (url, client, engine):
        jobs = [Job(PROMPT, Sampling(200, 1.0, seed=seed)) for seed in range(2)]
        running = engine.submit(jobs)
        while engine.waiting or engine.running < 2:
            assert not any(future.done() for future in running)
        reloading = threading.Thread(target=lambda: httpx.post(f"{url}/reload", timeout=60))
        reloading.start()
        assert {future.result(timeout=60).fingerprint for future in running} == {"old"}
        reloading.join()
        assert drawn(client)[0] == "new"


def test_weights_that_do_not_fit_or_cannot_be_read_change_nothing(model, tokenizer):
    def broken():
        raise UserError("runs/x: its weights changed while they were read")

    smaller = type(model)(nnx.clone(model).config.__class__(
        tokenizer.vocabulary_size, width=16, layers=2, query_heads=2, kv_heads=1, head_dim=16, mlp_width=64, window=24,
        layer_types=("sliding_attention", "full_attention"),
    ), rngs=nnx.Rngs(0))  # fmt: skip
    for load, message in ((broken, "changed while they were read"), (lambda: (smaller, "small"), "do not fit the model that is served")):
        with served(model, tokenizer, load) as (url, client, _):
            before = drawn(client)
            answer = httpx.post(f"{url}/reload", timeout=60)
            assert answer.status_code == 409 and message in answer.json()["error"]["message"]
            assert drawn(client) == before


def test_a_server_that_was_not_told_to_reload_does_not(http):
    assert http.post("/reload").status_code == 404
