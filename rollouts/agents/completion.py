"""A model behind an endpoint, prompted with the tokens that it is trained on."""

import dataclasses
from collections.abc import Sequence

from mira_jax.errors import UserError
from mira_jax.trajectories import records
from mira_jax.trajectories.prompts import Round, prompt_hash, prompt_ids, token_problem
from mira_jax.trajectories.records import Plan, Task, TokenCounts, episode_key
from mira_jax.trajectories.tokenizer import Tokenizer
from rollouts.agents.base import Agent, PolicyConfig, Reply, step_seed
from rollouts.errors import EndpointError
from rollouts.llm.answers import Completion
from rollouts.llm.endpoint import Endpoint
from rollouts.web.observation import Observation


class EndpointPolicy:
    """A model behind an endpoint, prompted in the format that it is trained on."""

    def __init__(self, config: PolicyConfig):
        self.config = config
        self.tokenizer = Tokenizer(config.tokenizer)
        self.endpoint = Endpoint(config.endpoint, "policy.endpoint")
        self.record = self._record()

    async def __aenter__(self) -> "EndpointPolicy":
        """Raises UserError if the endpoint can't be reached, or its model's context is too short for the prompts."""
        await self.endpoint.__aenter__()
        try:
            self._check_length()
        except BaseException:
            await self.endpoint.__aexit__()
            raise
        self.record = self._record()
        return self

    def _check_length(self) -> None:
        config, longest = self.config, self.endpoint.card.max_length
        needed = config.prompt.max_tokens + config.max_tokens
        if longest is not None and longest < needed:
            raise UserError(
                f"{config.endpoint.base_url}: {self.endpoint.model} takes {longest} tokens, but prompts of {config.prompt.max_tokens} "
                f"(policy.prompt.max_tokens) and responses of {config.max_tokens} (policy.max_tokens) take up to {needed}; serve it with "
                f"room for {needed} (mira_jax.serve: --set max_length={needed}; vLLM: --max-model-len {needed}), or lower one of the two"
            )

    async def __aexit__(self, *_: object) -> None:
        await self.endpoint.__aexit__()

    def agent(self, task: Task, attempt: int) -> Agent:
        return _EndpointAgent(self, task, episode_key(task, attempt, self.record))

    def _record(self) -> records.Policy:
        model = self.endpoint.model
        return records.Policy(
            name=self.config.name or model or "endpoint",
            checkpoint=self.config.checkpoint or model,
            fingerprint=self.endpoint.card.fingerprint,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            top_k=self.config.top_k,
            prompt_version=self.config.prompt.version,
            prompt_max_tokens=self.config.prompt.max_tokens,
            tokenizer=self.tokenizer.sha256,
            seed=self.config.seed,
        )


class _EndpointAgent:
    def __init__(self, policy: EndpointPolicy, task: Task, key: str):
        self.policy, self.task, self.key = policy, task, key

    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        config = self.policy.config
        prompt = prompt_ids(self.task.intent, past, observation.text, config.prompt, self.policy.tokenizer, plan)
        completion = await self.policy.endpoint.complete(
            prompt,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            seed=step_seed(self.key, len(past)),
        )
        counts = TokenCounts(prompt=len(prompt), response=completion.tokens)
        reply = Reply(completion.text, completion.log_prob, counts, completion.cut, prompt_hash(prompt))
        if not self._drawn(completion, prompt):
            return reply
        drawn = {name: getattr(completion, name) for name in ("token_ids", "log_probs", "sampling_log_probs")}
        return dataclasses.replace(reply, **drawn)

    def _drawn(self, completion: Completion, prompt: Sequence[int]) -> bool:
        """Whether the answer contains the sampled tokens, including the end token.

        Raises:
            UserError: the model read a different prompt from the one sent.
            EndpointError: the tokens do not match the text.
        """
        tokenizer, address = self.policy.tokenizer, self.policy.config.endpoint.base_url
        if completion.prompt_token_ids not in (None, tuple(prompt)):
            read = len(completion.prompt_token_ids)
            raise UserError(f"{address}: the model read another prompt than was sent, of {read} tokens in place of {len(prompt)}")
        ids = completion.token_ids
        if ids is None or not (completion.cut or ids[-1] in (tokenizer.end_of_turn_id, tokenizer.eos_id)):
            return False
        if problem := token_problem(ids, completion.text, tokenizer):
            raise EndpointError(f"{address}: the tokens of a response {problem}; policy.tokenizer must name the served model's tokenizer")
        return True
