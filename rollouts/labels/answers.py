"""A small model that answers YES or NO about an episode, behind an endpoint: an outcome reward model, or a checker of subgoals."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from mira_jax import config as configs
from mira_jax.errors import ConfigError
from mira_jax.needs import Needs
from mira_jax.trajectories.answer_prompts import answer_ids
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.tokenizer import Tokenizer
from rollouts.llm.endpoint import Endpoint, EndpointConfig
from rollouts.llm.probe import ask_completion, quick

RUN_CONFIG = "config.yaml"
"""In the folder of a run."""


class AnswerModel:
    """Asks the model for the probabilities of both answers. `endpoint` has to be open."""

    def __init__(self, endpoint: EndpointConfig, tokenizer: str, prompt: PromptConfig, key: str, recipe: str):
        """
        Args:
            key: path of the config that the others are part of.
            recipe: the recipe of the model's run.

        Raises:
            UserError: the tokenizer cannot be read or used, or its folder is a run of another recipe or with other prompts.
        """
        refuse_other_run(tokenizer, prompt, key, recipe)
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


def refuse_other_run(folder: str, prompt: PromptConfig, key: str, recipe: str) -> None:
    """Raises ConfigError if the folder is a run of another recipe, or one that learned from other prompts. An exported model does not say
    what it learned from."""
    path = Path(folder) / RUN_CONFIG
    if not path.is_file():
        return
    run = configs.read(path)
    parts = {name: part if isinstance(part := run.get(name), dict) else {} for name in ("recipe", "data")}
    if (trained := parts["recipe"].get("name")) != recipe:
        raise ConfigError(f"{key}.tokenizer", f"{folder} is a run of the recipe {trained}; name one of the recipe {recipe}")
    learned = configs.build(PromptConfig, parts["data"].get("prompt") or {}, str(path), "data.prompt.")
    if learned != prompt:
        raise ConfigError(f"{key}.prompt", f"{folder} learned from other prompts; set this to {json.dumps(configs.to_tree(learned))}")


def answer_model_needs(endpoint: EndpointConfig, tokenizer: str, prompt: PromptConfig, key: str, recipe: str, found: Needs) -> None:
    """Adds what an `AnswerModel` needs: its tokenizer, its key, and an endpoint that answers."""
    found.variable(f"{key}.endpoint.api_key_env", endpoint.api_key_env)
    if found.input(f"{key}.tokenizer", tokenizer):
        with found.attempt(f"{key}.tokenizer"):
            refuse_other_run(tokenizer, prompt, key, recipe)
            answer_ids(Tokenizer(tokenizer))
    found.ask(f"{key}.endpoint", lambda _: _ask(endpoint, key), endpoint)


async def _ask(config: EndpointConfig, key: str) -> str:
    async with Endpoint(quick(config), f"{key}.endpoint") as endpoint:
        return await ask_completion(endpoint, "ready")
