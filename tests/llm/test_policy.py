"""The policy of an endpoint: its prompts and seeds, and the tokens that it records."""

import hashlib

import pytest
from starlette.responses import JSONResponse

from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig, prompt_ids
from mira_jax.trajectories.records import Task
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer
from rollouts.agents.base import PolicyConfig, step_seed
from rollouts.agents.completion import EndpointPolicy
from rollouts.errors import EndpointError
from rollouts.llm.endpoint import EndpointConfig
from rollouts.web.observation import Observation
from tests.llm.endpoints import GOOD, VLLM_MODELS, answer, as_vllm, serving


async def test_the_policy_sends_the_training_prompt_with_a_seed_of_its_own_per_step(tmp_path):
    train_tokenizer(["press the button", 'do(action="Click")'] * 20, tmp_path / "tokenizer.model", 300)
    task = Task(id="t.1", suite="s", sites=(), template="t", split="test", seed=3, intent="press", start_url="/", horizon=5)
    long = {**GOOD, "choices": [{**GOOD["choices"][0], "finish_reason": "length"}]}
    async with serving(answer(), answer(tree=long), answer()) as (url, asked):
        config = PolicyConfig(tokenizer=str(tmp_path), temperature=1.0, endpoint=EndpointConfig(base_url=url))
        async with EndpointPolicy(config) as policy:
            assert (policy.record.name, policy.record.checkpoint, policy.record.temperature) == ("small", "small", 1.0)
            page = Observation(text='<a id="press">', url="u", title="")
            replies = [await policy.agent(task, attempt).respond([], page) for attempt in (0, 1, 0)]
    assert replies[0].log_prob == pytest.approx(-0.75)
    assert replies[0].tokens.prompt == len(asked[0]["prompt"])
    assert [reply.cut for reply in replies] == [False, True, False]
    seeds = [request["seed"] for request in asked]
    assert seeds[0] == seeds[2] != seeds[1] and all(0 <= seed < 2**31 for seed in seeds)
    assert step_seed("key", 0) != step_seed("key", 1)
    text = policy.tokenizer.decode(asked[0]["prompt"])
    assert "Task Instruction: press" in text and '<a id="press">' in text


@pytest.fixture
def tokenizer_folder(tmp_path):
    train_tokenizer(["press the button", 'do(action="Click")'] * 20, tmp_path / "tokenizer.model", 300)
    return tmp_path


TASK = Task(id="t.1", suite="s", sites=(), template="t", split="test", seed=3, intent="press", start_url="/", horizon=5)


PAGE = Observation(text='<a id="press">', url="u", title="")


async def respond(folder, reply_to, models=None, **settings):
    """What the policy makes of an answer; `reply_to` gets the tokenizer and the prompt that was sent."""
    tokenizer = Tokenizer(folder)
    prompt = prompt_ids(TASK.intent, [], PAGE.text, PromptConfig(), tokenizer)
    async with serving(answer(tree=reply_to(tokenizer, prompt)), models=models) as (url, _):
        config = PolicyConfig(
            tokenizer=str(folder), temperature=1.0, endpoint=EndpointConfig(base_url=url, backoff=0.01, retries=0), **settings
        )
        async with EndpointPolicy(config) as policy:
            return policy.record, await policy.agent(TASK, 0).respond([], PAGE), prompt


def drawn(tokenizer, prompt, pieces="press", end=None, **fields):
    """An answer in other pieces than the tokenizer makes of its text: a token per character."""
    ids = [token for character in pieces for token in tokenizer.encode(character)]
    ids += [tokenizer.end_of_turn_id if end is None else end]
    return as_vllm(ids, [-0.5] * len(ids), **{"prompt_ids": prompt, "text": "press", **fields})


async def test_a_reply_keeps_the_tokens_that_were_drawn(tokenizer_folder):
    record, reply, prompt = await respond(tokenizer_folder, drawn)
    tokenizer = Tokenizer(tokenizer_folder)
    assert list(reply.token_ids) != [*tokenizer.encode("press"), tokenizer.end_of_turn_id] and tokenizer.decode(reply.token_ids) == "press"
    assert reply.log_probs == reply.sampling_log_probs == (-0.5,) * len(reply.token_ids)
    assert reply.prompt_hash == hashlib.sha256(b"".join(token.to_bytes(4, "little") for token in prompt)).hexdigest()[:32]
    assert (record.tokenizer, record.prompt_max_tokens, record.top_p, record.top_k) == (tokenizer.sha256, 16_384, 1.0, 0)


async def test_answers_without_tokens_or_without_their_end_are_marked(tokenizer_folder):
    for reply_to in (
        lambda tokenizer, prompt: GOOD,
        lambda tokenizer, prompt: drawn(tokenizer, prompt, end=tokenizer.encode("s")[0], text="presss"),
    ):
        _, reply, _ = await respond(tokenizer_folder, reply_to)
        assert reply.token_ids is reply.log_probs is reply.sampling_log_probs is None and reply.prompt_hash
    # A response that was cut never had an end token.
    _, reply, _ = await respond(tokenizer_folder, lambda t, p: drawn(t, p, end=t.encode("s")[0], text="presss", finish_reason="length"))
    assert reply.cut and len(reply.token_ids) == 6


async def test_tokens_of_another_tokenizer_and_another_prompt_are_refused(tokenizer_folder):
    with pytest.raises(
        EndpointError, match=r"the tokens of a response decode to 'press', but its text is 'button'; policy\.tokenizer must name"
    ):
        await respond(tokenizer_folder, lambda tokenizer, prompt: drawn(tokenizer, prompt, text="button"))
    with pytest.raises(EndpointError, match="not all in the vocabulary"):
        await respond(tokenizer_folder, lambda tokenizer, prompt: drawn(tokenizer, prompt, end=99_999, finish_reason="length"))
    with pytest.raises(UserError, match=r"the model read another prompt than was sent, of (\d+) tokens"):
        await respond(tokenizer_folder, lambda tokenizer, prompt: drawn(tokenizer, [2, *prompt], prompt_ids=[2, *prompt]))


async def test_an_endpoint_that_takes_less_than_will_be_sent_is_refused_at_the_start(tokenizer_folder):
    models = JSONResponse(VLLM_MODELS)
    with pytest.raises(UserError, match=r"small takes 320 tokens, but prompts of 300 .* responses of 21 .* up to 321; .*max_length=321"):
        await respond(tokenizer_folder, drawn, models, prompt=PromptConfig(max_tokens=300), max_tokens=21)
    _, reply, _ = await respond(tokenizer_folder, drawn, models, prompt=PromptConfig(max_tokens=300), max_tokens=20)
    assert reply.text == "press"
