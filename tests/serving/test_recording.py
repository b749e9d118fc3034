"""What rollouts record of this server's answers, against the model run by hand; and that training reads the same tokens."""

import asyncio

import jax
import numpy as np
import pytest

from mira_jax.data.steps import tokenize
from mira_jax.trajectories.prompts import PromptConfig, Round, prompt_ids
from mira_jax.trajectories.records import Page, Status, Step, Task, Trajectory
from rollouts.agents.base import PolicyConfig
from rollouts.agents.completion import EndpointPolicy
from rollouts.llm.endpoint import EndpointConfig
from rollouts.web.observation import Observation

TASK = Task(id="t.1", suite="s", sites=(), template="t", split="train", seed=3, intent="blue lamp", start_url="/", horizon=5)
PROMPT = PromptConfig(version="compact", max_tokens=200)
PAGES = ('<a id="blue lamp">', '<a id="red cup">', "search")


@pytest.mark.parametrize("temperature, top_k", [(1.0, 0), (0.7, 0), (1.3, 5), (0.0, 0)])
def test_tokens_and_both_log_probabilities_are_the_models(server, folder, tokenizer, by_hand, temperature, top_k):
    async def episode():
        settings = {"tokenizer": str(folder), "prompt": PROMPT, "max_tokens": 40, "temperature": temperature, "top_k": top_k}
        async with EndpointPolicy(PolicyConfig(**settings, endpoint=EndpointConfig(base_url=server.url + "/v1"))) as policy:
            agent, past, replies = policy.agent(TASK, 0), [], []
            for page in PAGES:
                replies.append(await agent.respond(past, Observation(text=page, url="u", title="")))
                past.append(Round(replies[-1].text))
            return policy.record, replies, past

    record, replies, past = asyncio.run(episode())
    for index, (page, reply) in enumerate(zip(PAGES, replies, strict=True)):
        prompt = prompt_ids(TASK.intent, past[:index], page, PROMPT, tokenizer)
        rows = by_hand.log_probs([*prompt, *reply.token_ids])[len(prompt) - 1 : -1]
        drawn = np.arange(len(reply.token_ids)), list(reply.token_ids)
        np.testing.assert_allclose(reply.log_probs, rows[drawn], atol=2e-3)
        if temperature:
            scaled = rows / temperature
            if top_k:
                scaled = np.where(scaled >= np.sort(scaled)[:, [-top_k]], scaled, -np.inf)
            np.testing.assert_allclose(reply.sampling_log_probs, np.asarray(jax.nn.log_softmax(scaled))[drawn], atol=4e-3)
        else:
            assert set(reply.sampling_log_probs) == {0.0}
        assert reply.cut or reply.token_ids[-1] in (tokenizer.end_of_turn_id, tokenizer.eos_id)
    assert (record.fingerprint, record.temperature, record.top_k) == ("c0ffee", temperature, top_k)

    steps = tuple(
        Step(
            index=index, page=Page(url="u", observation=page), response=reply.text, cut=reply.cut,
            prompt_hash=reply.prompt_hash, token_ids=reply.token_ids,
        )
        for index, (page, reply) in enumerate(zip(PAGES, replies, strict=True))
    )  # fmt: skip
    trajectory = Trajectory(id="e", task=TASK, policy=record, steps=steps, status=Status.HORIZON)
    trained = tokenize([trajectory], PROMPT, tokenizer, progress=False)
    assert [trained.response(j).tolist() for j in range(3)] == [list(reply.token_ids) for reply in replies]
