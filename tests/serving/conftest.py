"""A tiny model with a vocabulary of a few hundred pieces, and a server on it in this process."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import httpx
import jax
import numpy as np
import openai
import pytest
from flax import nnx

from mira_jax.models import huggingface
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.prefixes import Prefixes
from mira_jax.models.sampler import Chunk, Sampler
from mira_jax.serving.app import make_app
from mira_jax.serving.engine import Engine
from mira_jax.serving.protocol import Served
from mira_jax.serving.server import Server, bind
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer

TEXT = 'do(action="Click", element="blue lamp") do(action="Type", argument="red cup", element="search") exit(message="done")\n'


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer([TEXT] * 20, path, 320, symbols=['do(action="', '", element="', "red cup", '")'])
    return Tokenizer(path)


@pytest.fixture(scope="session")
def model(tokenizer) -> Gemma3:
    """Random, and talkative: with the final norm's scales spread out it does not just repeat its last token."""
    config = Gemma3Config(
        tokenizer.vocabulary_size, width=32, layers=2, query_heads=2, kv_heads=1, head_dim=16, mlp_width=64, window=24,
        layer_types=("sliding_attention", "full_attention"),
    )  # fmt: skip
    model = Gemma3(config, rngs=nnx.Rngs(0))
    model.norm.scale[...] = 2 * jax.random.normal(jax.random.key(1), (32,))
    # It also comes to an end now and then.
    model.embedding[...] = model.embedding[...].at[tokenizer.end_of_turn_id].multiply(1.5)
    return model


@pytest.fixture(scope="session")
def folder(model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    huggingface.save(model, folder, tokenizer.path)
    return folder


@pytest.fixture(scope="session")
def sampler(model, tokenizer) -> Sampler:
    return Sampler(model, (tokenizer.eos_id, tokenizer.end_of_turn_id), rows=4, max_length=512, prefix_bytes=2**24)


@pytest.fixture(scope="session")
def engine(sampler, tokenizer):
    engine = Engine(sampler, tokenizer, queue_limit=64)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def server(engine):
    server = Server(make_app(engine, Served("tiny", "c0ffee", "float32")), bind("127.0.0.1", 0))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


@pytest.fixture(scope="session")
def by_hand(model):
    """The model without cache, batch or compiled loop: what the server's answers are compared with."""
    forward = jax.jit(lambda tokens: jax.nn.log_softmax(model.logits(model(tokens))))

    def log_probs(tokens: list[int]) -> np.ndarray:
        """T x V: row t is the distribution of token t+1."""
        padded = np.zeros((1, 512), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(forward(padded))[0, : len(tokens)]

    def greedy(prompt: list[int], count: int, end_ids: tuple[int, ...]) -> list[int]:
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(log_probs(tokens)[-1].argmax()))
            if tokens[-1] in end_ids:
                break
        return tokens[len(prompt) :]

    return SimpleNamespace(log_probs=log_probs, greedy=greedy)


class Script:
    """Stands for a sampler whose model says given tokens, one at each call."""

    rows, max_length = 1, 512

    def __init__(self, tokens: list[int], vocabulary_size: int, log_prob: float):
        self.tokens, self.vocabulary_size, self.prefixes = tokens, vocabulary_size, Prefixes(0)
        self.log_prob = log_prob
        self.reset()

    def reset(self) -> None:
        self._at: int | None = None

    @property
    def free_rows(self) -> int:
        return int(self._at is None)

    def insert(self, work) -> list[int]:
        self._at = 0
        return [0]

    def advance(self, until_free=False, alternatives=False) -> Chunk:
        token, self._at = self.tokens[self._at], self._at + 1
        log_prob, none = np.full((1, 1), self.log_prob), np.zeros((1, 1, 0))
        return Chunk(np.ones(1, int), np.array([[token]]), log_prob, log_prob, none, none, np.array([self._at < len(self.tokens)]), 1)

    def release(self, row: int) -> None:
        self._at = None


@pytest.fixture
def scripted(tokenizer):
    """A server whose model says given tokens, with one log-probability for all: its URL, and the sampler."""

    @contextlib.contextmanager
    def serve(tokens: list[int], log_prob: float = 0.0):
        script = Script(tokens, tokenizer.vocabulary_size, log_prob)
        engine = Engine(script, tokenizer)
        server = Server(make_app(engine, Served("tiny", "", "")), bind("127.0.0.1", 0))
        yield server.url, script
        server.stop()
        engine.close()

    return serve
