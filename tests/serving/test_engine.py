"""Jobs become completions: stop strings, ends, sharing of steps, hang-ups, failures."""

from concurrent.futures import wait

import numpy as np
import pytest
from flax import nnx

from mira_jax.models.prefixes import PART
from mira_jax.models.sampler import Sampler, Sampling
from mira_jax.serving.engine import Engine, EngineStopped, Job, NotFinite, QueueFull


@pytest.fixture(scope="module")
def prompt(tokenizer) -> list[int]:
    return [tokenizer.bos_id, *tokenizer.encode('do(action="Click", element="blue')]


@pytest.fixture(scope="module")
def said(engine, prompt) -> str:
    """What the model says after `prompt`, greedily, within 30 tokens."""
    return complete(engine, Job(prompt, Sampling(30))).text


def complete(engine, job: Job):
    return engine.submit([job])[0].result(timeout=60)


def test_greedy_completions_are_those_of_the_bare_model(engine, tokenizer, by_hand, prompt):
    completion = complete(engine, Job(prompt, Sampling(30)))
    expected = by_hand.greedy(prompt, 30, (tokenizer.eos_id, tokenizer.end_of_turn_id))
    assert completion.tokens == expected
    assert completion.text == tokenizer.decode(expected)
    assert len(completion.log_probs) == len(expected)


def test_a_stop_string_ends_the_text_before_it_and_the_tokens_with_it(engine, tokenizer, prompt, said):
    stop = said[5:8]
    completion = complete(engine, Job(prompt, Sampling(30), stop=("never said", stop)))
    assert completion.text == said[: said.index(stop)]
    assert completion.finish_reason == "stop"
    assert stop in tokenizer.decode(completion.tokens)
    assert stop not in tokenizer.decode(completion.tokens[:-1])
    assert len(completion.log_probs) == len(completion.tokens)


def test_an_end_token_ends_a_completion_and_is_counted_but_not_said(engine, tokenizer, prompt):
    futures = engine.submit([Job(prompt, Sampling(40, 1.0, seed=seed)) for seed in range(20)])
    completions = [future.result(timeout=60) for future in futures]
    ended = [completion for completion in completions if completion.finish_reason == "stop"]
    assert 0 < len(ended) < 20
    for completion in ended:
        assert completion.tokens[-1] in (tokenizer.eos_id, tokenizer.end_of_turn_id)
        assert completion.text == tokenizer.decode(completion.tokens[:-1])
    for completion in completions:
        assert not {tokenizer.eos_id, tokenizer.end_of_turn_id} & set(completion.tokens[:-1])
        assert completion in ended or len(completion.tokens) == 40


def test_max_tokens_ends_a_completion(engine, prompt, said):
    completion = complete(engine, Job(prompt, Sampling(4)))
    assert (len(completion.tokens), completion.finish_reason) == (4, "length")
    assert said.startswith(completion.text)


def test_jobs_that_arrive_together_share_decode_steps(engine, prompt):
    engine.counters.most_rows = 0
    before = engine.counters.decode_steps, engine.counters.drawn_tokens
    futures = engine.submit([Job(prompt, Sampling(24, 1.0, seed=seed)) for seed in range(4)])
    drawn = [len(future.result(timeout=60).tokens) for future in futures]
    assert engine.counters.most_rows == 4
    assert engine.counters.drawn_tokens - before[1] == sum(drawn)
    assert engine.counters.decode_steps - before[0] == max(drawn) - 1


def test_more_jobs_than_rows_all_end_and_each_as_if_alone(engine, prompt):
    jobs = [Job(prompt[: 3 + seed], Sampling(5 + seed, 1.0, seed=seed)) for seed in range(11)]
    together = [future.result(timeout=60) for future in engine.submit(jobs)]
    assert together == [complete(engine, job) for job in jobs]


def test_prompts_that_wait_together_are_prefilled_together_up_to_the_limit(engine, model, tokenizer, prompt, monkeypatch):
    sampler = Sampler(model, (tokenizer.eos_id, tokenizer.end_of_turn_id), rows=4, max_length=512, prefill_tokens=2 * 64)
    batches, insert = [], sampler.insert
    monkeypatch.setattr(sampler, "insert", lambda work: batches.append(len(work)) or insert(work))
    batched = Engine(sampler, tokenizer)
    jobs = [Job([*prompt, 10 + place], Sampling(6, 1.0, seed=place)) for place in (0, 1, 1, 2)]
    together = [future.result(timeout=60) for future in batched.submit(jobs)]
    batched.close()
    assert batches == [3, 1]
    assert [made.tokens for made in together] == [complete(engine, job).tokens for job in jobs]


def test_progress_adds_up_to_the_text_and_never_tells_part_of_a_stop_string(engine, prompt, said):
    stop = said[12:16]
    told: list[str] = []
    completion = complete(engine, Job(prompt, Sampling(30), stop=(stop,), progress=told.append))
    assert "".join(told) == completion.text == said[: said.index(stop)]
    told.clear()
    complete(engine, Job(prompt, Sampling(30), stop=(said[-1] + "x",), progress=told.append))
    assert "".join(told) == said


def test_successive_prompts_of_an_episode_read_their_common_beginning_once(engine, tokenizer, by_hand):
    draw, ends = np.random.default_rng(0), (tokenizer.eos_id, tokenizer.end_of_turn_id)
    history, pages = (draw.integers(10, tokenizer.vocabulary_size, size).tolist() for size in (330, (3, 60)))
    hits, tokens = engine.counters.prefix_hits, engine.counters.prefix_tokens
    for step in range(3):
        prompt = history[: 270 + 30 * step] + pages[step]
        assert complete(engine, Job(prompt, Sampling(8))).tokens == by_hand.greedy(prompt, 8, ends)
    assert engine.counters.prefix_hits - hits == 2
    assert engine.counters.prefix_tokens - tokens == 2 * PART


def test_a_cancelled_job_leaves_its_row(engine, prompt):
    futures = engine.submit([Job(prompt, Sampling(400)) for _ in range(4)])
    for future in futures:
        future.cancel()
    before = engine.counters.decode_steps
    assert complete(engine, Job(prompt, Sampling(2))).tokens
    assert engine.counters.decode_steps - before < 400
    assert engine.running <= 1


def test_the_queue_takes_all_jobs_of_a_request_or_none(engine, prompt):
    with pytest.raises(QueueFull, match="limit is 64"):
        engine.submit([Job(prompt, Sampling(1))] * 65)
    assert engine.waiting == 0


def test_a_failure_of_the_model_is_told_to_its_callers_and_the_next_job_is_served(engine, prompt, said):
    # No caller of the HTTP side can send an empty prompt; here it stands for any error inside the model.
    lost = engine.submit([Job([], Sampling(30))])[0]
    assert isinstance(lost.exception(timeout=60), AssertionError)
    assert complete(engine, Job(prompt, Sampling(30))).text == said


def test_closing_cancels_what_is_unfinished(sampler, tokenizer, prompt):
    engine = Engine(sampler, tokenizer)
    futures = engine.submit([Job(prompt, Sampling(400, 1.0)) for _ in range(40)])
    engine.close()
    assert not wait(futures, timeout=10).not_done
    assert futures[-1].cancelled()
    assert not engine.alive
    with pytest.raises(EngineStopped, match="stopping"):
        engine.submit([Job(prompt, Sampling(1))])


def test_an_engine_that_can_not_recover_answers_all_its_jobs_and_takes_no_more(model, tokenizer, prompt, monkeypatch):
    """Out of memory in a decode step, and again while the rows are made anew."""
    sampler = Sampler(model, (tokenizer.eos_id,), rows=2, max_length=512)
    engine = Engine(sampler, tokenizer)

    def fail(*arguments, **options):
        raise RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(sampler, "reset", fail)
    monkeypatch.setattr(sampler, "advance", fail)
    futures = engine.submit([Job(prompt, Sampling(5))] * 5)
    errors = [future.exception(timeout=60) for future in futures]
    assert [type(error) for error in errors] == [RuntimeError] * 2 + [EngineStopped] * 3
    assert not engine.alive and engine.waiting == engine.running == 0
    with pytest.raises(EngineStopped, match="start it again"):
        engine.submit([Job(prompt, Sampling(1))])
    engine.close()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_fail_the_job_and_yield_no_text(model, tokenizer, prompt, value):
    broken = nnx.clone(model)
    broken.norm.scale[...] = broken.norm.scale[...].at[3].set(value)
    engine = Engine(Sampler(broken, (tokenizer.eos_id,), rows=2, max_length=512), tokenizer)
    jobs = [Job(prompt, Sampling(5)), Job(prompt, Sampling(5, 1.0)), Job(prompt, Sampling(0), score_prompt=True)]
    for future in engine.submit(jobs):
        with pytest.raises(NotFinite, match="check the weights"):
            future.result(timeout=60)
    assert engine.alive and engine.running == 0
    engine.close()
