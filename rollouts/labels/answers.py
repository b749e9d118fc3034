"""A small model that answers YES or NO about an episode, behind an endpoint: an outcome reward model, or a checker of subgoals."""

import math
from collections.abc import Sequence

from mira_jax.errors import ConfigError
from mira_jax.needs import Needs
from mira_jax.trajectories.answer_prompts import answer_ids
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.tokenizer import Tokenizer
from rollouts.llm.endpoint import Endpoint, EndpointConfig
from rollouts.llm.probe import ask_completion, quick


class AnswerModel:
    """Asks the model for the probabilities of both answers. `endpoint` has to be open."""

    def __init__(self, endpoint: EndpointConfig, tokenizer: str, prompt: PromptConfig, key: str):
        """`key`: path of the config that these are part of. Raises UserError if the tokenizer cannot be read or used."""
        self.endpoint = Endpoint(endpoint, f"{key}.endpoint")
        self.tokenizer, self.prompt, self._key = Tokenizer(tokenizer), prompt, key
        self._answers = answer_ids(self.tokenizer)

    @property
    def name(self) -> str:
        """The served model, with the first digits of its fingerprint if the server reports it."""
        fingerprint = self.endpoint.card.fingerprint
        return self.endpoint.model + (f" ({fingerprint[:12]})" if fingerprint else "")

    def check_length(self) -> None:
        """Raises ConfigError if the prompts may be too long for the served model."""
        longest, needed = self.endpoint.card.max_length, self.prompt.max_tokens + 1
        if longest is not None and longest < needed:
            raise ConfigError(
                f"{self._key}.prompt.max_tokens",
                f"prompts of {needed - 1} tokens and an answer take {needed}, but {self.endpoint.model} takes {longest}; serve it with "
                f"room for {needed} (mira_jax.serve: --set max_length={needed})",
            )

    async def probability(self, prompt: Sequence[int]) -> float:
        """P(YES) / (P(YES) + P(NO)) after the prompt.

        Raises:
            EndpointError, UserError: see `Endpoint.last_log_probs`.
        """
        yes, no = await self.endpoint.last_log_probs([[*prompt, answer] for answer in self._answers])
        return 1 / (1 + math.exp(min(no - yes, 700.0)))


def answer_model_needs(endpoint: EndpointConfig, tokenizer: str, key: str, found: Needs) -> None:
    """Adds what an `AnswerModel` needs: its tokenizer, its key, and an endpoint that answers."""
    found.variable(f"{key}.endpoint.api_key_env", endpoint.api_key_env)
    if found.input(f"{key}.tokenizer", tokenizer):
        with found.attempt(f"{key}.tokenizer"):
            answer_ids(Tokenizer(tokenizer))
    found.ask(f"{key}.endpoint", lambda _: _ask(endpoint, key), endpoint)


async def _ask(config: EndpointConfig, key: str) -> str:
    async with Endpoint(quick(config), f"{key}.endpoint") as endpoint:
        return await ask_completion(endpoint, "ready")
