"""Converts episodes to the examples of an outcome reward model (ORM): one example per episode."""

from collections.abc import Iterator

from mira_jax.data.examples import Example, Turn
from mira_jax.trajectories.outcome_prompts import answer_ids, outcome_prompt_ids
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer


def outcome_examples(trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer) -> Iterator[Example]:
    """Makes one example, with one turn, which belongs to the last step. An episode without steps has no example.

    The tokens of the response are the two possible answers, YES and then NO. `training.log_probs.answer_log_probs` reads the
    probability of each at the last prompt token. The example does not contain the outcome, so it is the same without labels.

    Raises:
        UserError: see `outcome_prompt_ids` and `answer_ids`.
    """
    if not trajectory.steps:
        return
    prompt_tokens = outcome_prompt_ids(trajectory, prompt, tokenizer)
    tokens = [*prompt_tokens, *answer_ids(tokenizer)]
    yield Example(tokens, [Turn(len(trajectory.steps) - 1, len(prompt_tokens), len(tokens))])
