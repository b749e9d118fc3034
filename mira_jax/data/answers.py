"""Converts episodes to the examples of models that answer YES or NO: one per episode of an ORM, one per step of a checker.

The tokens of a response are the two possible answers, YES and then NO. `training.log_probs.answer_log_probs` reads the probability of
each at the last prompt token. An example does not contain the right answer.
"""

import hashlib
from collections.abc import Iterator

from mira_jax.data.examples import Example, Turn
from mira_jax.trajectories.answer_prompts import answer_ids, outcome_prompt_ids, subgoal_prompt_ids
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer


def outcome_examples(trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer) -> Iterator[Example]:
    """Makes the example of an ORM, with one turn, which belongs to the last step. An episode without steps has no example.

    Raises:
        UserError: see `outcome_prompt_ids` and `answer_ids`.
    """
    if trajectory.steps:
        yield _example(outcome_prompt_ids(trajectory, prompt, tokenizer), len(trajectory.steps) - 1, tokenizer)


def subgoal_examples(trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer) -> Iterator[Example]:
    """Makes one example of a checker per step: whether the subgoal `subgoal_of_step` is done after it. An episode without subgoals has no
    examples.

    Raises:
        UserError: see `outcome_prompt_ids` and `answer_ids`.
    """
    texts = [subgoal.text for subgoal in trajectory.subgoals]
    for step in range(len(trajectory.steps) if texts else 0):
        text = texts[subgoal_of_step(trajectory.id, step, len(texts))]
        yield _example(subgoal_prompt_ids(trajectory, step, text, prompt, tokenizer), step, tokenizer)


def subgoal_of_step(trajectory: str, step: int, count: int) -> int:
    """Which of `count` subgoals the example of a step asks about: uniformly distributed, by a hash of the trajectory's id and the step."""
    return int.from_bytes(hashlib.sha256(f"{trajectory} {step}".encode()).digest()[:8], "big") % count


def _example(prompt_tokens: list[int], step: int, tokenizer: Tokenizer) -> Example:
    tokens = [*prompt_tokens, *answer_ids(tokenizer)]
    return Example(tokens, [Turn(step, len(prompt_tokens), len(tokens))])
