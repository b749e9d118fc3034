"""A tiny model, a tokenizer, and made-up episodes for the recipes."""

import numpy as np
import pytest
from flax import nnx

from mira_jax.data.steps import tokenize
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.recipes.scoring import score_policy
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return synthetic.write_folder(tmp_path_factory.mktemp("episodes"), count=24, infra_every=8)


@pytest.fixture(scope="session")
def reader(folder):
    return ShardReader(folder)


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory):
    return synthetic.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model")


@pytest.fixture(scope="session")
def examples(reader, tokenizer_path):
    return tokenize(reader, PromptConfig(version="compact", max_tokens=256), Tokenizer(tokenizer_path), progress=False)


@pytest.fixture(scope="session")
def config(tokenizer_path):
    size = Tokenizer(tokenizer_path).vocabulary_size
    return Gemma3Config(vocabulary_size=size, width=32, layers=1, query_heads=2, kv_heads=1, head_dim=16, mlp_width=64, window=512)


@pytest.fixture(scope="session")
def policy(config):
    return Gemma3(config, rngs=nnx.Rngs(0))


@pytest.fixture(scope="session")
def scored(policy, reader, examples):
    """A side table of the policy's own log-probs, with values and potentials made up."""
    columns, tokens = score_policy(policy, examples, alternatives=8)
    draw = np.random.default_rng(0)
    columns |= {name: draw.random(len(examples)) for name in ("value", "potential", "second_value")}
    ids = [trajectory.id for trajectory in reader for _ in trajectory.steps]
    numbers = np.array([step.index for trajectory in reader for step in trajectory.steps])
    sound = examples.usable
    columns = {name: column[sound] for name, column in columns.items()}
    tokens = {name: column.take(np.flatnonzero(sound)) for name, column in tokens.items()}
    return SideTable(np.array(ids)[sound].tolist(), numbers[sound], columns, token_columns=tokens)


def rows_of_their_own(examples):
    """Every step in a row of its own, padded on the right."""
    longest = int(np.diff(examples.starts).max())
    tokens = np.zeros((len(examples), longest), np.int32)
    for step in range(len(examples)):
        both = np.concatenate([examples.prompt(step), examples.response(step)])
        tokens[step, : len(both)] = both
    return tokens
