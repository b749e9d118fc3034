"""A recipe chooses its examples: whole episodes in place of steps, and columns that compare the attempts at one task."""

import dataclasses

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from flax import nnx

from mira_jax.data.examples import Example, Turn
from mira_jax.data.packing import PackedBatches
from mira_jax.data.pipeline import DataConfig
from mira_jax.data.steps import step_examples, tokenize
from mira_jax.models.heads import Critic
from mira_jax.recipes import policies
from mira_jax.recipes.base import Prepared
from mira_jax.recipes.critic import CriticRecipe
from mira_jax.recipes.labels import read_labels
from mira_jax.recipes.objectives.sft import SFT
from mira_jax.training.setup import pack_data
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.shards import StepIndex
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic

PROMPT = PromptConfig(version="compact", max_tokens=256)


def whole_episodes(trajectory, prompt, tokenizer):
    """All prompts and responses of an episode one after another, one turn per step."""
    tokens, turns = [], []
    for number, step in enumerate(step_examples(trajectory, prompt, tokenizer)):
        (turn,) = step.turns
        turns.append(Turn(number, len(tokens) + turn.start, len(tokens) + turn.stop))
        tokens += step.tokens
    yield Example(tokens, turns)


@dataclasses.dataclass(frozen=True)
class EpisodeCritic(CriticRecipe):
    examples = staticmethod(whole_episodes)


class EpisodeSFT(SFT):
    examples = staticmethod(whole_episodes)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_path):
    return Tokenizer(tokenizer_path)


def pack(recipe, reader, tokenizer, prepared, **keys):
    config = DataConfig(prompt=PROMPT, row_length=1024, rows=16, **keys)
    examples = tokenize(reader, PROMPT, tokenizer, recipe.examples, progress=False)
    return pack_data(config, examples, prepared.keep, prepared.columns, recipe.reads_responses, epochs=1, updates=None, seed=0).train


def episodes_in_tokens(reader, tokenizer):
    """Record, its tokens, and (start, stop) of each response; infrastructure errors left out."""
    for record, trajectory in enumerate(reader):
        if trajectory.outcome is None:
            continue
        tokens, spans = [], []
        for step in step_examples(trajectory, PROMPT, tokenizer):
            spans.append((len(tokens) + step.turns[0].start, len(tokens) + step.turns[0].stop))
            tokens += step.tokens
        yield record, tokens, spans


def log_probs_of(policy):
    """A function of tokens: log p of each after those before it, [tokens, V]. One program: tokens are padded on the right."""
    run = jax.jit(lambda tokens: jax.nn.log_softmax(policy.logits(policy(tokens))))
    return lambda tokens: np.asarray(run(padded(tokens)))[0]


def padded(tokens, length=1024):
    return jnp.array([[*tokens, *[0] * (length - len(tokens))]], jnp.int32)


def test_a_critic_over_whole_episodes_reads_every_state_in_its_episode(config, reader, tokenizer):
    recipe = EpisodeCritic(heads=("value",))
    prepared = recipe.prepare(reader, [])
    packed = pack(recipe, reader, tokenizer, prepared)
    batch = packed[0]
    assert len(packed) == 1 and batch["step_mask"].sum() == prepared.keep.sum() > batch["segment_ids"].max(axis=1).sum()
    assert batch["response_mask"].size == 0

    model = Critic(config, ("value",), rngs=nnx.Rngs(1))
    model.heads["value"].out[...] = jax.random.normal(jax.random.key(0), model.heads["value"].out[...].shape)
    loss, _ = jax.jit(lambda batch: recipe.loss(model, batch))(batch)

    index, expected = StepIndex(reader.steps_per_record), []
    read = jax.jit(lambda tokens, states: model(tokens, None, None, states)["value"])
    for record, tokens, spans in episodes_in_tokens(reader, tokenizer):
        logits = np.asarray(read(padded(tokens), padded([start - 1 for start, _ in spans], 8)), np.float64)[0]
        v, success = 1 / (1 + np.exp(-logits)), prepared.columns["success"][index.start(record)]
        expected += [-np.log(v[t] if success else 1 - v[t]) for t in range(len(spans))]
    assert float(loss.total / loss.weight) == pytest.approx(np.mean(expected), rel=1e-4)


def test_a_policy_over_whole_episodes_is_credited_for_every_response(policy, reader, tokenizer):
    recipe = EpisodeSFT(normalize="step")
    batch = pack(recipe, reader, tokenizer, recipe.prepare(reader, []))[0]
    loss, _ = jax.jit(lambda batch: recipe.loss(policy, batch))(batch)
    log_probs_of_tokens = log_probs_of(policy)
    expected, count = 0.0, 0
    for _, tokens, spans in episodes_in_tokens(reader, tokenizer):
        log_probs = log_probs_of_tokens(tokens)
        expected -= sum(log_probs[i - 1, tokens[i]] for start, stop in spans for i in range(start, stop))
        count += len(spans)
    assert float(loss.total / loss.weight) == pytest.approx(expected / count, rel=1e-4)


def test_steps_that_a_recipe_left_out_are_context_in_their_episode(reader, tokenizer):
    recipe = EpisodeSFT()
    keep = read_labels(reader).numbers > 0
    batch = pack(recipe, reader, tokenizer, Prepared(keep))[0]
    packed = batch["step_id"][batch["step_id"] >= 0]
    sound = read_labels(reader).sound
    assert sorted(packed.tolist()) == np.flatnonzero(keep & sound).tolist()
    index = StepIndex(reader.steps_per_record)
    for record, tokens, spans in episodes_in_tokens(reader, tokenizer):
        if len(spans) == 1:
            assert index.start(record) not in packed
            continue
        b, s = np.argwhere(batch["step_id"] == index.start(record) + 1)[0]
        begin = batch["last_prompt_index"][b, s] - (spans[1][0] - 1)
        assert batch["tokens"][b, begin : begin + len(tokens) - 1].tolist() == tokens[:-1]
        assert len(set(batch["segment_ids"][b, begin : begin + len(tokens) - 1])) == 1
        credited = batch["response_index"][b][(batch["response_mask"][b] > 0) & (batch["response_segment"][b] == s)]
        assert credited.tolist() == list(range(begin + spans[1][0] - 1, begin + spans[1][1] - 1))


class FirstStepOfGroups:
    """Normalises outcomes over the attempts at one task, and credits their first steps."""

    examples = staticmethod(step_examples)

    def prepare(self, reader, tables):
        labels = read_labels(reader)
        advantage = np.zeros(len(labels), np.float32)
        for task in np.unique(labels.task):
            group = labels.task == task
            outcomes = labels.success[group & labels.last]
            advantage[group] = (labels.success[group] - outcomes.mean()) / (outcomes.std() + 1e-6)
        return Prepared(labels.sound, {"advantage": advantage, "credit": (labels.numbers == 0).astype(np.float32)})

    def loss(self, model, batch):
        log_prob = policies.step_log_probs(model, batch)
        return policies.mean_over_steps(-log_prob * batch["advantage"] * batch["credit"], batch), {}


def test_columns_may_compare_the_attempts_at_one_task_and_depend_on_the_place_of_a_step(policy, tokenizer):
    def attempt(number, success):
        made = synthetic.trajectory(0, 3, success=success)
        return msgspec.structs.replace(made, id=f"attempt-{number}", attempt=number)

    # Two attempts at one task, of which one succeeds, and one at another: its group says nothing.
    episodes = [attempt(0, True), synthetic.trajectory(1, 2, success=True), attempt(1, False)]
    recipe = FirstStepOfGroups()
    prepared = recipe.prepare(episodes, [])
    np.testing.assert_allclose(prepared.columns["advantage"], [1, 1, 1, 0, 0, -1, -1, -1], atol=1e-5)
    assert prepared.columns["credit"].tolist() == [1, 0, 0, 1, 0, 1, 0, 0]
    examples = tokenize(episodes, PROMPT, tokenizer, recipe.examples, progress=False)
    batch = PackedBatches(examples, np.arange(8), prepared.columns, row_length=512, rows=8)[0]
    loss, _ = jax.jit(lambda batch: recipe.loss(policy, batch))(batch)

    log_probs_of_tokens = log_probs_of(policy)

    def log_prob(step):
        tokens, first = [*examples.prompt(step), *examples.response(step)], len(examples.prompt(step))
        log_probs = log_probs_of_tokens(tokens)
        return sum(log_probs[i - 1, tokens[i]] for i in range(first, len(tokens)))

    # The first steps of the two attempts are the steps 0 and 5.
    assert float(loss.total / loss.weight) == pytest.approx((-log_prob(0) + log_prob(5)) / 8, abs=1e-4)
