"""The outcome reward model: examples, loss and score against a model that reads each prompt by itself, in NumPy."""

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from mira_jax.data.answers import outcome_examples
from mira_jax.data.packing import PackedBatches
from mira_jax.data.steps import tokenize
from mira_jax.errors import UserError
from mira_jax.recipes import make_recipe, options_of
from mira_jax.recipes.labels import fold_of, task_key
from mira_jax.recipes.scoring import score_orm
from mira_jax.trajectories.answer_prompts import answer_ids, outcome_prompt_ids
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Outcome, Status
from mira_jax.trajectories.tokenizer import Tokenizer
from tests.synthetic import trajectory

PROMPT = PromptConfig(version="compact", max_tokens=256)


def by(source, episode):
    return msgspec.structs.replace(episode, outcome=Outcome(success=episode.success, score=1.0, source=source))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_path):
    return Tokenizer(tokenizer_path)


@pytest.fixture(scope="module")
def of_outcomes(reader, tokenizer):
    return tokenize(reader, PROMPT, tokenizer, outcome_examples, progress=False)


@pytest.fixture(scope="module")
def alone(policy, reader, tokenizer):
    """(log P(YES), log P(NO)) of each episode, or None, from a forward pass over its prompt alone."""
    forward = jax.jit(lambda tokens: jax.nn.log_softmax(policy.logits(policy(tokens))))
    found = []
    for episode in reader:
        prompt = outcome_prompt_ids(episode, PROMPT, tokenizer)
        row = np.zeros((1, 256), np.int32)
        row[0, : len(prompt)] = prompt
        log_probs = np.asarray(forward(row), np.float64)[0, len(prompt) - 1]
        found.append(None if episode.status is Status.INFRA_ERROR else [log_probs[answer] for answer in answer_ids(tokenizer)])
    return found


def test_an_example_is_an_episode(of_outcomes, reader, tokenizer):
    ends = np.cumsum([len(episode.steps) for episode in reader]) - 1
    sound = [episode.status is not Status.INFRA_ERROR for episode in reader]
    made = np.flatnonzero(of_outcomes.response_lengths)
    assert of_outcomes.turn_step[made].tolist() == ends[sound].tolist()
    episodes = [episode for episode in reader if episode.status is not Status.INFRA_ERROR]
    for example, episode in zip(made, episodes, strict=True):
        assert of_outcomes.prompt(example).tolist() == outcome_prompt_ids(episode, PROMPT, tokenizer)
        assert tuple(of_outcomes.response(example).tolist()) == answer_ids(tokenizer)


def test_it_learns_from_outcomes_by_rule():
    episodes = [trajectory(0, 3, success=True), by("judge", trajectory(1, 2, success=True)), trajectory(2, 1, success=False)]
    episodes += [trajectory(3, 2, status=Status.INFRA_ERROR), trajectory(4, 1, success=False)]
    prepared = make_recipe({"name": "orm"}).prepare(episodes, [])
    assert prepared.keep.tolist() == [False, False, True, False, False, True, False, False, True]
    np.testing.assert_array_equal(prepared.columns["answer"][prepared.keep], [1, 0, 0])
    np.testing.assert_array_equal(prepared.columns["weight"][prepared.keep], [1, 1, 1])
    assert prepared.summary == {"episodes": 3, "success_rate": pytest.approx(1 / 3)}
    balanced = make_recipe({"name": "orm", "balanced": True}).prepare(episodes, [])
    # One success and two failures weigh 3/2 each class.
    np.testing.assert_allclose(balanced.columns["weight"][balanced.keep], [3 / 2, 3 / 4, 3 / 4])


def test_data_that_it_cannot_learn_from_is_refused():
    recipe = make_recipe({"name": "orm"})
    with pytest.raises(UserError, match="no episode has an outcome by rule"):
        recipe.prepare([by("orm", trajectory(0, 2, success=True))], [])
    with pytest.raises(UserError, match="all 2 outcomes by rule are failures; an ORM needs both"):
        recipe.prepare([trajectory(number, 2, success=False) for number in range(2)], [])


def test_a_fold_holds_out_its_tasks():
    episodes = [trajectory(number, 2, success=number % 2 == 0) for number in range(12)]
    recipe = make_recipe({"name": "orm", "folds": 3, "fold": 1})
    assert make_recipe(options_of(recipe)) == recipe
    expected = [fold_of(task_key(episode.task), 3) == 1 for episode in episodes for _ in episode.steps]
    assert recipe.prepare(episodes, []).held_out.tolist() == expected
    for bad in ({"folds": 1}, {"folds": 2, "fold": 2}, {"fold": 1}):
        with pytest.raises(UserError, match=r"recipe\.fold"):
            make_recipe({"name": "orm", **bad})


@pytest.mark.parametrize("balanced", [False, True])
def test_the_loss_of_packed_rows_is_that_of_the_episodes_one_by_one(policy, reader, of_outcomes, alone, balanced):
    recipe = make_recipe({"name": "orm", "balanced": balanced})
    prepared = recipe.prepare(reader, [])
    batch = PackedBatches(of_outcomes, np.flatnonzero(prepared.keep), prepared.columns, row_length=512, rows=16)[0]
    assert batch["step_mask"].sum(axis=1).max() > 1
    loss, metrics = jax.jit(recipe.loss)(policy, {name: jnp.asarray(array) for name, array in batch.items() if name != "step_id"})
    answers = np.array([pair for pair in alone if pair])
    won = np.array([episode.success for episode in reader if episode.status is not Status.INFRA_ERROR])
    yes, no = np.exp(answers).T
    p = yes / (yes + no)
    nll = -np.log(np.where(won, p, 1 - p))
    weight = np.where(won, 1 / (2 * won.mean()), 1 / (2 * (~won).mean())) if balanced else np.ones(len(won))
    values = {name: float(value.total / value.weight) for name, value in {"loss": loss, **metrics}.items()}
    expected = {
        "loss": (weight * nll).mean(),
        "accuracy": ((p >= 0.5) == won).mean(),
        "p_where_yes": p[won].mean(),
        "p_where_no": p[~won].mean(),
        "answer_mass": (yes + no).mean(),
    }
    assert values == pytest.approx(expected, rel=1e-4)


def test_the_score_is_the_probability_of_yes_among_both_answers(policy, reader, of_outcomes, alone):
    found = score_orm(policy, of_outcomes)["success_probability"]
    ends = np.cumsum([len(episode.steps) for episode in reader]) - 1
    for end, pair in zip(ends, alone, strict=True):
        if pair is None:
            assert np.isnan(found[end])
        else:
            assert found[end] == pytest.approx(np.exp(pair[0]) / (np.exp(pair[0]) + np.exp(pair[1])), rel=1e-4)
    assert np.isnan(np.delete(found, ends)).all()
