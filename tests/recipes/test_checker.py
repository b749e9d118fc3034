"""The checker of subgoals: examples, labels and loss against a model that reads each prompt by itself, in NumPy."""

import hashlib

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from mira_jax.data.answers import subgoal_examples, subgoal_of_step
from mira_jax.data.packing import PackedBatches
from mira_jax.data.steps import tokenize
from mira_jax.errors import UserError
from mira_jax.recipes import make_recipe, options_of
from mira_jax.recipes.labels import fold_of, task_key
from mira_jax.trajectories.answer_prompts import SUBGOAL_QUESTION, answer_ids, outcome_prompt_ids, subgoal_prompt_ids
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Evidence, Page, Status
from mira_jax.trajectories.tokenizer import Tokenizer
from tests.synthetic import trajectory

PROMPT = PromptConfig(version="compact", max_tokens=256)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_path):
    return Tokenizer(tokenizer_path)


@pytest.fixture(scope="module")
def of_subgoals(reader, tokenizer):
    return tokenize(reader, PROMPT, tokenizer, subgoal_examples, progress=False)


def asked(episode, step):
    """By hand: the subgoal that the example of a step asks about."""
    return int.from_bytes(hashlib.sha256(f"{episode.id} {step}".encode()).digest()[:8], "big") % len(episode.subgoals)


def without_subgoals(episode):
    steps = tuple(msgspec.structs.replace(step, milestones=()) for step in episode.steps)
    return msgspec.structs.replace(episode, subgoals=(), steps=steps)


def test_the_prompt_has_the_page_after_the_step_and_nothing_later(tokenizer):
    episode = trajectory(3, 3, success=True)
    text = tokenizer.decode(subgoal_prompt_ids(episode, 1, "click it", PROMPT, tokenizer))
    assert [step.response in text for step in episode.steps] == [True, True, False]
    assert [step.page.observation in text for step in episode.steps] == [False, False, True]
    assert text.rstrip().endswith(episode.steps[2].page.observation + "\nclick it")
    end = msgspec.structs.replace(episode, evidence=Evidence(page=Page(url="u", observation="thank you")))
    assert "thank you\nclick it" in tokenizer.decode(subgoal_prompt_ids(end, 2, "click it", PROMPT, tokenizer))
    # Without recorded evidence, it is the page before the last response.
    assert episode.steps[2].page.observation in tokenizer.decode(subgoal_prompt_ids(episode, 2, "click it", PROMPT, tokenizer))
    words = tokenizer.decode(subgoal_prompt_ids(end, 2, "click it", PromptConfig(version="webrl", max_tokens=2000), tokenizer))
    assert SUBGOAL_QUESTION in words and "Last Page:\nthank you\nSubgoal: click it" in words


def test_subgoals_after_one_step_share_the_prompt_up_to_the_page(tokenizer):
    episode = trajectory(3, 3, success=True)
    one, other = (subgoal_prompt_ids(episode, 2, text, PROMPT, tokenizer) for text in ("click it", "stop"))
    orm = outcome_prompt_ids(episode, PROMPT, tokenizer)
    assert one[: len(orm) - 1] == other[: len(orm) - 1] == orm[:-1] and one[-1] == other[-1] == orm[-1]


def test_a_long_page_is_cut_and_the_subgoal_is_kept(tokenizer):
    page = Page(url="u", observation="word " * 5000)
    episode = msgspec.structs.replace(trajectory(1, 2), evidence=Evidence(page=page))
    prompt = subgoal_prompt_ids(episode, 1, "click red lamp", PROMPT, tokenizer)
    assert len(prompt) == 256 and tokenizer.decode(prompt).rstrip().endswith("[page cut]\nclick red lamp")
    with pytest.raises(UserError, match="leaves no room"):
        subgoal_prompt_ids(episode, 1, "click " * 500, PROMPT, tokenizer)


def test_an_example_is_a_step_and_asks_about_one_subgoal(of_subgoals, reader, tokenizer):
    made = iter(np.flatnonzero(of_subgoals.response_lengths))
    for episode in reader:
        for step in range(len(episode.steps) if episode.status is not Status.INFRA_ERROR else 0):
            example, text = next(made), episode.subgoals[asked(episode, step)].text
            assert of_subgoals.prompt(example).tolist() == subgoal_prompt_ids(episode, step, text, PROMPT, tokenizer)
            assert tuple(of_subgoals.response(example).tolist()) == answer_ids(tokenizer)
    assert next(made, None) is None
    assert list(subgoal_examples(without_subgoals(trajectory(1, 3)), PROMPT, tokenizer)) == []


def test_all_subgoals_are_asked_about_equally_often():
    counts = np.bincount([subgoal_of_step(f"episode-{number}", 3, 4) for number in range(4000)])
    assert len(counts) == 4 and (abs(counts - 1000) < 100).all()


def test_it_learns_from_the_milestones_after_each_step():
    episodes = [trajectory(0, 4, success=True), without_subgoals(trajectory(1, 2, success=True)), trajectory(2, 3, success=False)]
    episodes += [trajectory(3, 2, status=Status.INFRA_ERROR), trajectory(4, 4, success=True)]
    prepared = make_recipe({"name": "checker"}).prepare(episodes, [])
    kept = [episodes[0], episodes[2], episodes[4]]
    assert prepared.keep.tolist() == [True] * 4 + [False] * 2 + [True] * 3 + [False] * 2 + [True] * 4
    expected = [float(step.milestones[asked(one, step.index)]) for one in kept for step in one.steps]
    assert prepared.columns["answer"][prepared.keep].tolist() == expected and 0 < sum(expected) < 11
    assert prepared.summary == {"questions": 11, "share_done": pytest.approx(sum(expected) / 11)}
    balanced = make_recipe({"name": "checker", "balanced": True}).prepare(episodes, []).columns["weight"][prepared.keep]
    done = np.array(expected, bool)
    assert balanced[done].sum() == pytest.approx(11 / 2) and balanced[~done].sum() == pytest.approx(11 / 2)


def test_what_was_done_once_counts_as_done():
    steps = [msgspec.structs.replace(step, milestones=(step.index == 0,)) for step in trajectory(0, 3).steps]
    episode = msgspec.structs.replace(trajectory(0, 3), subgoals=trajectory(0, 1).subgoals, steps=tuple(steps))
    with pytest.raises(UserError, match="the subgoals asked about are all done, after all 3 steps; a checker needs both"):
        make_recipe({"name": "checker"}).prepare([episode], [])


def test_data_that_it_cannot_learn_from_is_refused():
    with pytest.raises(UserError, match="no episode has milestones"):
        make_recipe({"name": "checker"}).prepare([without_subgoals(trajectory(0, 2)), trajectory(1, 2, status=Status.INFRA_ERROR)], [])
    with pytest.raises(UserError, match="asked about are never done, after all 1 steps"):
        make_recipe({"name": "checker"}).prepare([trajectory(0, 1, success=False)], [])


def test_a_fold_holds_out_its_tasks():
    episodes = [trajectory(number, 2) for number in range(12)]
    recipe = make_recipe({"name": "checker", "folds": 3, "fold": 1})
    assert make_recipe(options_of(recipe)) == recipe
    expected = [fold_of(task_key(episode.task), 3) == 1 for episode in episodes for _ in episode.steps]
    held_out = recipe.prepare(episodes, []).held_out
    assert held_out is not None and held_out.tolist() == expected


def test_the_loss_of_packed_rows_is_that_of_the_questions_one_by_one(policy, reader, of_subgoals, tokenizer):
    recipe = make_recipe({"name": "checker", "balanced": True})
    prepared = recipe.prepare(reader, [])
    batch = PackedBatches(of_subgoals, np.flatnonzero(prepared.keep), prepared.columns, row_length=512, rows=32)[0]
    assert batch["step_mask"].sum() == prepared.keep.sum() and batch["step_mask"].sum(axis=1).max() > 1
    loss, metrics = jax.jit(recipe.loss)(policy, {name: jnp.asarray(array) for name, array in batch.items() if name != "step_id"})
    forward = jax.jit(lambda tokens: jax.nn.log_softmax(policy.logits(policy(tokens))))
    p, done = [], []
    for episode in reader:
        for step in episode.steps if episode.status is not Status.INFRA_ERROR else ():
            number = asked(episode, step.index)
            prompt = subgoal_prompt_ids(episode, step.index, episode.subgoals[number].text, PROMPT, tokenizer)
            row = np.zeros((1, 256), np.int32)
            row[0, : len(prompt)] = prompt
            yes, no = (np.exp(np.asarray(forward(row), np.float64)[0, len(prompt) - 1])[answer] for answer in answer_ids(tokenizer))
            p.append(yes / (yes + no))
            done.append(step.milestones[number])
    p, done = np.array(p), np.array(done)
    weight = np.where(done, 1 / (2 * done.mean()), 1 / (2 * (~done).mean()))
    expected = (weight * -np.log(np.where(done, p, 1 - p))).mean()
    assert float(loss.total / loss.weight) == pytest.approx(expected, rel=1e-4)
    accuracy = metrics["accuracy"]
    assert float(accuracy.total / accuracy.weight) == pytest.approx(((p >= 0.5) == done).mean(), rel=1e-4)
