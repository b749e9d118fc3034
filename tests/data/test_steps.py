"""Step examples are what a rollout reads and writes."""

import dataclasses

import msgspec
import numpy as np
import pytest

from mira_jax.data.pipeline import split
from mira_jax.data.steps import choose, corpus, tokenize
from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig, prompt_hash, prompt_ids, response_ids, rounds, token_problem
from mira_jax.trajectories.records import Subgoal
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


def drawn(tokenizer, prompt):
    """An episode as the endpoint returned it: its last response in other pieces than the tokenizer makes of the text."""
    whole = synthetic.trajectory(0, success=True)
    steps = []
    for index, step in enumerate(whole.steps):
        ids = [token for character in step.response for token in tokenizer.encode(character)] + [tokenizer.end_of_turn_id]
        page = msgspec.structs.replace(step.page, observation=step.page.observation * 4)
        hashed = prompt_hash(prompt_ids(whole.task.intent, rounds(whole.steps[:index]), page.observation, prompt, tokenizer))
        steps.append(msgspec.structs.replace(step, page=page, token_ids=tuple(ids), prompt_hash=hashed))
    settings = {"prompt_version": prompt.version, "prompt_max_tokens": prompt.max_tokens, "tokenizer": tokenizer.sha256}
    return msgspec.structs.replace(whole, steps=tuple(steps), policy=msgspec.structs.replace(whole.policy, **settings))


def test_a_response_is_what_was_drawn_not_what_its_text_would_be_in_tokens(tokenizer):
    prompt = PromptConfig(version="compact", max_tokens=400)
    episode = drawn(tokenizer, prompt)
    examples = tokenize([episode], prompt, tokenizer, progress=False)
    for j, step in enumerate(episode.steps):
        assert examples.response(j).tolist() == list(step.token_ids)
        assert examples.response(j).tolist() != response_ids(step.response, tokenizer)
        assert tokenizer.decode(examples.response(j)) == step.response


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("compact", ["done: none of 2", "done: 1 of 2", "done: 1 of 2"]),
        ("webrl", ["[ ] find\n[ ] buy", "[x] find\n[ ] buy", "[x] find\n[ ] buy"]),
    ],
)
def test_a_critic_sees_which_subgoals_were_done_before_the_step(tokenizer, version, lines):
    """What a policy read is still compared, and what a subgoal says at a step does not depend on that step."""
    prompt = PromptConfig(version=version, max_tokens=1000)
    episode = drawn(tokenizer, prompt)
    done = [(True, False), (False, False), (True, True)]
    steps = [msgspec.structs.replace(step, milestones=z) for step, z in zip(episode.steps, done, strict=True)]
    episode = msgspec.structs.replace(episode, subgoals=(Subgoal(text="find", check=""), Subgoal(text="buy", check="")), steps=tuple(steps))
    examples = tokenize([episode], dataclasses.replace(prompt, subgoals=True), tokenizer, progress=False)
    for j, text in enumerate(lines):
        page = f"{text}\n{episode.steps[j].page.observation}"
        assert examples.prompt(j).tolist() == prompt_ids(episode.task.intent, rounds(episode.steps[:j]), page, prompt, tokenizer)
    altered = msgspec.structs.replace(steps[1], prompt_hash="0" * 32)
    with pytest.raises(UserError, match="not the one that the policy read"):
        tokenize(
            [msgspec.structs.replace(episode, steps=(steps[0], altered, steps[2]))], dataclasses.replace(prompt, subgoals=True), tokenizer
        )
    unlabelled = msgspec.structs.replace(steps[1], milestones=())
    for without in ({"subgoals": ()}, {"steps": (steps[0], unlabelled, steps[2])}):
        with pytest.raises(UserError, match="label its episodes"):
            tokenize([msgspec.structs.replace(episode, **without)], dataclasses.replace(prompt, subgoals=True), tokenizer)


def test_a_prompt_that_the_policy_did_not_read_is_an_error_that_names_the_cause(tokenizer, tmp_path):
    prompt = PromptConfig(version="compact", max_tokens=400)
    episode = drawn(tokenizer, prompt)
    short = int(tokenize([episode], prompt, tokenizer, progress=False).prompt_lengths.max()) - 1
    for other, message in (
        (PromptConfig("webrl", 400), "prompt.version was compact and is webrl; set it to compact"),
        (PromptConfig("compact", short), f"prompt.max_tokens was 400 and is {short}; set it to 400"),
    ):
        with pytest.raises(UserError, match=rf"trajectory episode-0-0: the prompt of step \d is not the one .*: {message}"):
            tokenize([episode], other, tokenizer, progress=False)
    strange = Tokenizer(synthetic.write_tokenizer(tmp_path / "tokenizer.model", 400))
    with pytest.raises(UserError, match=rf"its tokenizer has the SHA-256 {tokenizer.sha256[:12]}, .* has {strange.sha256[:12]}"):
        tokenize([episode], prompt, strange, progress=False)
    altered = msgspec.structs.replace(episode, task=msgspec.structs.replace(episode.task, intent="Click it"))
    with pytest.raises(UserError, match=r"the prompt of step 0 is not the one .*the record was altered"):
        tokenize([altered], prompt, tokenizer, progress=False)
    # A limit that cuts nothing changes nothing.
    tokenize([episode], PromptConfig("compact", 500), tokenizer, progress=False)


@pytest.mark.parametrize("ids, message", [((4, 99_999), "are not all in the vocabulary"), ((-1,), "are not all"), ((20, 21), "decode to")])
def test_tokens_that_are_not_those_of_the_text_are_an_error(tokenizer, ids, message):
    prompt = PromptConfig(version="compact", max_tokens=400)
    episode = drawn(tokenizer, prompt)
    wrong = msgspec.structs.replace(episode, steps=(msgspec.structs.replace(episode.steps[0], token_ids=ids), *episode.steps[1:]))
    with pytest.raises(UserError, match=f"trajectory episode-0-0: the tokens of step 0 {message}"):
        tokenize([wrong], prompt, tokenizer, progress=False)


def test_half_a_character_at_the_cut_is_no_error(tokenizer):
    """The first byte of two: SentencePiece and other decoders put one replacement character or several in its place."""
    byte = next(token for token in range(tokenizer.vocabulary_size) if tokenizer.piece(token) == "<0xC3>")
    ids = [*tokenizer.encode("exit"), byte]
    assert token_problem(ids, "exit\ufffd", tokenizer) == token_problem(ids, "exit\ufffd\ufffd", tokenizer) == ""
    assert "decode to" in token_problem(ids, "exi\ufffdx", tokenizer)
    assert "decode to" in token_problem(ids[:-1], "ex\ufffd", tokenizer)


def test_attempts_at_one_task_are_on_one_side_of_the_holdout(tokenizer):
    """Six tasks, four attempts each, in an order that mixes them; one task id with another seed is another task."""
    episodes = [
        msgspec.structs.replace(item, id=f"{item.id}/{attempt}", attempt=attempt)
        for attempt in range(4)
        for item in (*synthetic.trajectories(3), *(msgspec.structs.replace(
            item, task=msgspec.structs.replace(item.task, seed=99)) for item in synthetic.trajectories(3)))
    ]  # fmt: skip
    examples = tokenize(episodes, PromptConfig(), tokenizer, progress=False)
    held = split(examples.task, 0.5, seed=3)
    sides: dict[tuple[str, int], set[bool]] = {}
    for j in range(len(examples)):
        task = episodes[examples.episode[j]].task
        sides.setdefault((task.id, task.seed), set()).add(bool(held[j]))
    assert len(sides) == 6 and all(len(side) == 1 for side in sides.values())
    assert sum(side == {True} for side in sides.values()) == 3


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
