"""The OpenAI client and bare HTTP against a real server in this process."""

import asyncio
import collections
import concurrent.futures
import contextlib
import itertools
import json
import socket
import time
from collections.abc import Callable

import httpx
import jax
import numpy as np
import pytest

PROMPT = 'do(action="Click", element="blue'


SERIES = 'mira_requests_total{{path="/v1/completions",status="{}"}}'


@pytest.fixture(scope="module")
def ids(tokenizer) -> list[int]:
    return [tokenizer.bos_id, *tokenizer.encode(PROMPT)]


def test_the_openai_client_completes_text_and_token_ids_alike(client, tokenizer, ids, by_hand):
    text = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, temperature=0)
    tokens = client.completions.create(model="tiny", prompt=ids, max_tokens=20, temperature=0)
    expected = by_hand.greedy(ids, 20, (tokenizer.eos_id, tokenizer.end_of_turn_id))
    assert text.choices[0].text == tokens.choices[0].text == tokenizer.decode(expected)
    assert text.object == "text_completion" and text.model == "tiny" and text.id != tokens.id
    assert (text.usage.prompt_tokens, text.usage.completion_tokens) == (len(ids), len(expected))
    assert text.usage.total_tokens == len(ids) + len(expected)
    assert text.choices[0].finish_reason == ("length" if len(expected) == 20 else "stop")


def test_a_list_of_prompts_and_n_give_choices_in_order(client, ids):
    both = client.completions.create(model="tiny", prompt=[ids, ids[:5]], max_tokens=9, temperature=1, seed=3, n=2)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    one = client.completions.create(model="tiny", prompt=ids, max_tokens=9, temperature=1, seed=3, n=2)
    assert [choice.text for choice in both.choices[:2]] == [choice.text for choice in one.choices]
    assert one.choices[0].text != one.choices[1].text
    assert both.usage.prompt_tokens == len(ids) + 5
    texts = client.completions.create(model="tiny", prompt=["red", "blue"], max_tokens=3)
    assert len(texts.choices) == 2


def test_seeds_repeat_and_their_absence_does_not(client, ids):
    def draw(**seed):
        return client.completions.create(model="tiny", prompt=ids, max_tokens=12, **seed).choices[0].text

    assert draw(seed=11) == draw(seed=11) != draw(seed=12)
    assert draw() != draw()


def first_tokens(client, **options) -> list[int]:
    """The first token of each completion."""
    extra = {"return_token_ids": True}
    answer = client.completions.create(model="tiny", max_tokens=1, temperature=1, extra_body=extra, **options)
    return [choice.model_extra["token_ids"][0] for choice in answer.choices]


@pytest.mark.parametrize("seed", [{}, {"seed": 3}])
def test_equal_prompts_of_one_request_and_their_choices_draw_independently(client, ids, by_hand, seed):
    drawn = [
        token for number in range(8) for token in first_tokens(
            client, prompt=[ids] * 20, n=3, **({"seed": 3 + number} if seed else {})
        )
    ]  # fmt: skip
    # Pairs of independent draws are equal with probability sum p^2: compare prompt with prompt, and choice with choice.
    p = np.exp(by_hand.log_probs(ids)[-1].astype(np.float64))
    equal = float((p**2).sum())
    table = np.array(drawn).reshape(8, 20, 3)
    for name, first, second in (("prompts", table[:, :-1], table[:, 1:]), ("choices", table[:, :, :-1], table[:, :, 1:])):
        matches, pairs = int((first == second).sum()), first.size
        # Neighbouring pairs share a draw, which at most doubles the variance of independent ones.
        assert abs(matches - equal * pairs) < 5 * np.sqrt(2 * pairs * equal * (1 - equal)), name


def test_a_seed_gives_the_tokens_that_gumbel_noise_of_its_stream_gives(client, ids, by_hand):
    """The streams are part of what a seed means: fold_in(fold_in(key(seed), 128 prompt + choice), position)."""
    logits = by_hand.log_probs(ids)[-1]

    def expected(stream: int) -> int:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(11), stream), len(ids))
        return int((logits + np.asarray(jax.random.gumbel(key, logits.shape))).argmax())

    assert first_tokens(client, prompt=ids, seed=11) == [expected(0)]
    drawn = first_tokens(client, prompt=[ids] * 4, n=2, seed=11)
    assert drawn == [expected(128 * prompt + choice) for prompt in range(4) for choice in range(2)]
    assert drawn == first_tokens(client, prompt=[ids] * 4, n=2, seed=11)


def sampled_from(log_probs: np.ndarray, temperature: float, top_p: float, top_k: int) -> np.ndarray:
    """The distribution that a token is drawn from, V; in NumPy, by loops."""
    p = np.exp(log_probs.astype(np.float64) / temperature)
    order = sorted(range(len(p)), key=lambda token: -p[token])
    kept = order[:top_k] if top_k > 0 else order
    total, nucleus, mass = sum(p[token] for token in kept), [], 0.0
    for token in kept:
        nucleus.append(token)
        mass += p[token] / total
        if mass >= top_p:
            break
    out = np.zeros(len(p))
    out[nucleus] = p[nucleus] / p[nucleus].sum()
    return out


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"), [(1, 1, -1), (0.7, 1, 0), (1.5, 0.6, 0), (1, 1, 5), (2, 0.8, 12), (1, 1, 10**9)]
)
@pytest.mark.parametrize("chat", [False, True])
def test_sampling_log_probs_are_those_of_the_distribution_drawn_from(client, ids, by_hand, temperature, top_p, top_k, chat):
    options = {"model": "tiny", "max_tokens": 12, "temperature": temperature, "top_p": top_p, "seed": 4, "n": 3}
    extra = {"return_token_ids": True, "top_k": top_k}
    if chat:
        messages = [{"role": "user", "content": PROMPT}]
        answer = client.chat.completions.create(messages=messages, logprobs=True, extra_body=extra, **options)
        ids = answer.model_extra["prompt_token_ids"]
    else:
        answer = client.completions.create(prompt=ids, logprobs=0, extra_body=extra, **options)
    for choice in answer.choices:
        tokens = choice.model_extra["token_ids"]
        rows = by_hand.log_probs(ids + tokens)[len(ids) - 1 : -1]
        own = [item.logprob for item in choice.logprobs.content] if chat else choice.logprobs.token_logprobs
        np.testing.assert_allclose(own, [row[token] for row, token in zip(rows, tokens, strict=True)], atol=1e-4)
        drawn_from = [sampled_from(row, temperature, top_p, top_k)[token] for row, token in zip(rows, tokens, strict=True)]
        np.testing.assert_allclose(choice.logprobs.model_extra["sampling_logprobs"], np.log(drawn_from), atol=2e-4)


def test_what_a_trainer_records_of_a_completion(client, server, tokenizer, ids):
    """Token ids with the end token, both log-probabilities per token, and which weights drew them."""
    options = {"model": "tiny", "prompt": ids, "max_tokens": 40, "logprobs": 0, "extra_body": {"return_token_ids": True}}
    drawn = client.completions.create(n=20, temperature=1, seed=0, **options)
    assert drawn.system_fingerprint == "c0ffee"
    card = client.models.retrieve("tiny").model_extra
    assert (card["fingerprint"], card["dtype"], card["max_model_len"]) == ("c0ffee", "float32", 512)
    ended = [choice for choice in drawn.choices if choice.finish_reason == "stop"]
    assert ended
    for choice in drawn.choices:
        tokens, of_tokens = choice.model_extra["token_ids"], choice.logprobs
        assert len(tokens) == len(of_tokens.token_logprobs) == len(of_tokens.model_extra["sampling_logprobs"])
        assert (tokens[-1] in (tokenizer.eos_id, tokenizer.end_of_turn_id)) == (choice in ended)
        # At temperature 1 without top_p and top_k both are the same distribution.
        np.testing.assert_allclose(of_tokens.token_logprobs, of_tokens.model_extra["sampling_logprobs"], atol=1e-5)
    greedy = client.completions.create(temperature=0, echo=True, **options).choices[0]
    count = len(greedy.model_extra["token_ids"])
    assert greedy.logprobs.model_extra["sampling_logprobs"] == [None] * len(ids) + [0] * count
    chunks = client.completions.create(model="tiny", prompt=ids, max_tokens=2, stream=True)
    assert {chunk.system_fingerprint for chunk in chunks} == {"c0ffee"}


def test_echo_with_log_probs_scores_the_prompt_without_drawing(client, tokenizer, ids, by_hand):
    choice = client.completions.create(model="tiny", prompt=ids, max_tokens=0, echo=True, logprobs=2).choices[0]
    whole = by_hand.log_probs(ids)
    assert choice.text == PROMPT
    assert choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None
    np.testing.assert_allclose(choice.logprobs.token_logprobs[1:], [whole[t, token] for t, token in enumerate(ids[1:])], atol=1e-4)
    assert choice.logprobs.tokens == [tokenizer.piece(token) for token in ids]
    assert [max(top.values()) for top in choice.logprobs.top_logprobs[1:]] == pytest.approx(whole[:-1].max(-1).tolist(), abs=1e-4)
    for token, offset in list(zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True))[1:]:
        assert PROMPT[offset:].startswith(token)


def test_log_probs_of_drawn_tokens_follow_those_of_an_echoed_prompt(client, ids, by_hand):
    choice = client.completions.create(
        model="tiny", prompt=ids, max_tokens=6, temperature=0, echo=True, logprobs=0, extra_body={"return_token_ids": True}
    ).choices[0]
    drawn = choice.model_extra["token_ids"]
    assert choice.model_extra["prompt_token_ids"] == ids
    whole = by_hand.log_probs(ids + drawn)
    np.testing.assert_allclose(choice.logprobs.token_logprobs[len(ids) :], whole[len(ids) - 1 : -1].max(-1), atol=1e-4)
    assert choice.text.startswith(PROMPT)
    assert choice.logprobs.top_logprobs is None


def test_stop_ends_before_the_string(client, ids):
    text = client.completions.create(model="tiny", prompt=ids, max_tokens=30, temperature=0).choices[0].text
    stopped = client.completions.create(model="tiny", prompt=ids, max_tokens=30, temperature=0, stop=[text[4:6]]).choices[0]
    assert (stopped.text, stopped.finish_reason) == (text[: text.index(text[4:6])], "stop")


def test_chat_uses_gemmas_turns(client, tokenizer):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "red"},
        {"role": "assistant", "content": "cup"},
        {"role": "user", "content": [{"type": "text", "text": "blue"}]},
    ]
    answer = client.chat.completions.create(
        model="tiny", messages=messages, max_completion_tokens=8, temperature=0, logprobs=True, top_logprobs=2,
        extra_body={"return_token_ids": True},
    )  # fmt: skip
    choice = answer.choices[0]
    start, end, newline = [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id], tokenizer.encode("\n")
    prompt = choice.model_extra["prompt_token_ids"]
    assert prompt == [
        tokenizer.bos_id, *start, *tokenizer.encode("user\nbe brief\n\nred"), *end, *newline, *start, *tokenizer.encode("model\ncup"), *end,
        *newline, *start, *tokenizer.encode("user\nblue"), *end, *newline, *start, *tokenizer.encode("model\n"),
    ]  # fmt: skip
    same = client.completions.create(model="tiny", prompt=prompt, max_tokens=8, temperature=0).choices[0]
    assert choice.message.content == same.text and choice.message.role == "assistant"
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    assert choice.logprobs.content[0].logprob == choice.logprobs.content[0].top_logprobs[0].logprob


def test_marks_spelled_out_in_a_text_are_no_marks(client, tokenizer):
    choice = client.completions.create(model="tiny", prompt="a<end_of_turn>b", max_tokens=1, extra_body={"return_token_ids": True}).choices[
        0
    ]
    assert tokenizer.end_of_turn_id not in choice.model_extra["prompt_token_ids"]


def test_streams_add_up_to_the_whole(client, ids):
    whole = client.completions.create(model="tiny", prompt=ids, max_tokens=30, temperature=0)
    parts = list(client.completions.create(
        model="tiny", prompt=ids, max_tokens=30, temperature=0, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    assert "".join(part.choices[0].text for part in parts if part.choices) == whole.choices[0].text
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == whole.choices[0].finish_reason
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens
    messages = [{"role": "user", "content": "red"}]
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0)
    parts = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0, stream=True)
    assert "".join(part.choices[0].delta.content for part in parts) == answer.choices[0].message.content


def test_models_and_health(client, http):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").model_extra["max_model_len"] == 512
    health = http.get("/health").json()
    assert health["status"] == "ok" and health["model"] == "tiny" and health["completions"] > 0


def test_requests_in_parallel_share_a_batch_and_answer_as_alone(client, engine, ids):
    def ask(seed: int) -> str:
        return client.completions.create(model="tiny", prompt=ids, max_tokens=40, temperature=1, seed=seed).choices[0].text

    alone = [ask(seed) for seed in range(8)]
    before, engine.counters.most_rows = engine.counters.decode_steps, 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone
    assert engine.counters.most_rows > 1
    assert engine.counters.decode_steps - before < 8 * 39


def test_a_full_queue_says_when_to_come_back(http, engine, ids):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        body = {"prompt": [ids] * 60, "max_tokens": 400}
        answers = list(pool.map(lambda _: http.post("/v1/completions", json=body), range(3)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused and refused[0].headers["Retry-After"] == "1"
    assert any(answer.status_code == 200 for answer in answers)


def test_metrics_count_requests_tokens_and_seconds(http, engine, ids):
    before = metrics(http)
    http.post("/v1/completions", json={"prompt": [ids, ids], "max_tokens": 4, "temperature": 0})
    http.post("/v1/completions", json={"prompt": "a", "n": 0})
    http.get("/admin/secret")
    after = metrics(http)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown['mira_requests_total{path="/v1/completions",status="200"}'] == 1
    assert grown['mira_requests_total{path="/v1/completions",status="400"}'] == 1
    assert grown['mira_requests_total{path="other",status="404"}'] == 1
    assert grown["mira_completions_total"] == 2
    assert grown["mira_prompt_tokens_total"] == 2 * len(ids)
    assert 2 <= grown["mira_generated_tokens_total"] <= 8
    assert grown['mira_request_seconds_count{path="/v1/completions"}'] == 2
    assert grown['mira_request_seconds_bucket{le="+Inf",path="/v1/completions"}'] == 2
    assert after["mira_waiting"] == after["mira_running"] == 0
    assert after["mira_prefix_hits_total"] == engine.counters.prefix_hits


def metrics(http: httpx.Client) -> dict[str, float]:
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_of_a_thousand_requests_at_once_none_is_lost(server, http, engine, ids, monkeypatch):
    monkeypatch.setattr(engine, "queue_limit", 300)
    before, statuses = metrics(http), collections.Counter()

    async def ask(client: httpx.AsyncClient, seed: int) -> int:
        body = {"prompt": ids[: 5 + seed % 10], "max_tokens": 1 + seed % 3, "temperature": 1, "seed": seed}
        for attempt in itertools.count():
            answer = await client.post("/v1/completions", json=body)
            statuses[answer.status_code] += 1
            if answer.status_code != 429:
                return answer.json()["usage"]["completion_tokens"]
            # As clients do, it asks ever more rarely, so that the asking does not take the time of the answering.
            await asyncio.sleep(float(answer.headers["Retry-After"]) * min(2**attempt, 8))

    async with contextlib.AsyncExitStack() as stack:
        # Several clients, as one looks through all its connections at each request.
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=120)) for _ in range(20)]
        tokens = await asyncio.gather(*(ask(clients[seed % len(clients)], seed) for seed in range(1000)))
    assert all(1 <= count <= 1 + seed % 3 for seed, count in enumerate(tokens))
    assert set(statuses) == {200, 429} and statuses[200] == 1000
    after = metrics(http)
    assert {status: after[SERIES.format(status)] - before.get(SERIES.format(status), 0) for status in statuses} == statuses
    assert engine.waiting == engine.running == 0


def test_a_client_that_hangs_up_frees_its_rows(server, engine, ids):
    before, jobs = engine.counters.completions, 60
    body = json.dumps({"prompt": [ids] * jobs, "max_tokens": 480, "temperature": 0}).encode()
    address = httpx.URL(server.url)
    with socket.create_connection((address.host, address.port)) as line:
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: server\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        until(lambda: engine.running > 0)
    until(lambda: engine.waiting == 0 and engine.running == 0)
    assert engine.counters.completions - before < jobs


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)
