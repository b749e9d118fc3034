"""Step examples are what a rollout reads and writes."""

import msgspec
import numpy as np
import pytest

from mira_jax.data.steps import choose, corpus, tokenize
from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig, prompt_ids, rounds
from mira_jax.trajectories.shards import ShardReader, StepIndex
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(synthetic.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return ShardReader(synthetic.write_folder(tmp_path_factory.mktemp("episodes"), count=12, infra_every=4))


@pytest.mark.parametrize("version", ["webrl", "compact"])
def test_a_step_is_the_prompt_of_the_rollout_and_the_response_with_its_end(reader, tokenizer, version):
    prompt = PromptConfig(version=version, max_tokens=200)
    examples = tokenize(reader, prompt, tokenizer, progress=False)
    index = StepIndex(reader.steps_per_record)
    assert len(examples) == len(index)
    for j in range(len(index)):
        record, step = index[j]
        trajectory = reader[record]
        assert examples.episode[j] == record
        if trajectory.outcome is None:
            assert not examples.usable[j] and len(examples.prompt(j)) == len(examples.response(j)) == 0
            continue
        past, page = rounds(trajectory.steps[:step]), trajectory.steps[step].page.observation
        expected = prompt_ids(trajectory.task.intent, past, page, prompt, tokenizer)
        assert examples.prompt(j).tolist() == expected
        assert tokenizer.decode(examples.response(j)) == trajectory.steps[step].response
        assert examples.response(j)[-1] == tokenizer.end_of_turn_id
        assert examples.response_lengths[j] == len(examples.response(j))
        assert examples.successful[j] == trajectory.success


def test_a_response_that_was_cut_gets_no_end_token(tokenizer):
    whole = synthetic.trajectory(0, success=True)
    cut = msgspec.structs.replace(whole, steps=(*whole.steps[:-1], msgspec.structs.replace(whole.steps[-1], cut=True)))
    ours, expected = (tokenize([item], PromptConfig(), tokenizer, progress=False) for item in (cut, whole))
    assert ours.response(2).tolist() == expected.response(2)[:-1].tolist()
    assert ours.response(1).tolist() == expected.response(1).tolist()


def test_steps_of_infrastructure_errors_are_never_chosen(reader, tokenizer):
    examples = tokenize(reader, PromptConfig(), tokenizer, progress=False)
    everything = choose(examples, np.ones(len(examples), bool), "all")
    chosen = {int(examples.episode[j]) for j in everything}
    assert chosen == {record for record in range(12) if record % 4 != 3}
    successes = choose(examples, np.ones(len(examples), bool), "success")
    assert {int(examples.episode[j]) for j in successes} == {record for record in chosen if reader[record].success}


def test_nothing_left_to_train_on_says_why(reader, tokenizer):
    examples = tokenize(reader, PromptConfig(), tokenizer, progress=False)
    with pytest.raises(UserError, match=r"none of the \d+ steps is left .* the recipe chose 0"):
        choose(examples, np.zeros(len(examples), bool), "all")


def test_the_corpus_holds_each_text_once(reader):
    texts = corpus(reader)
    assert len(texts) == len(set(texts))
    assert reader[0].task.intent in texts and reader[0].steps[0].response in texts
    assert len([text for text in corpus(reader, most=3) if text.startswith("Click")]) == 3
