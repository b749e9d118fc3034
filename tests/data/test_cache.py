"""The token cache: what is read from it is what would be made, and nothing else is read."""

import json
import logging
import multiprocessing
import pickle
import time

import msgspec
import numpy as np
import pytest

from mira_jax.data import cache
from mira_jax.data.cache import ARRAYS, MADE_FROM, TOKENS, Entry, cache_folder, inputs
from mira_jax.data.episodes import Episodes
from mira_jax.data.examples import Example, Turn
from mira_jax.data.steps import step_examples, tokenize
from mira_jax.errors import UserError
from mira_jax.recipes.labels import read_labels
from mira_jax.trajectories import shards
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.shards import ShardReader, write_shard
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic

PROMPT = PromptConfig(version="compact", max_tokens=200)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(synthetic.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic.write_folder(tmp_path_factory.mktemp("episodes"), count=12, infra_every=4)


@pytest.fixture
def work(monkeypatch):
    """Counts of decoded records and of encoded texts."""
    counts = {"decoded": 0, "encoded": 0}

    def counting(name, function):
        def count(*arguments):
            counts[name] += 1
            return function(*arguments)

        return count

    monkeypatch.setattr(shards, "decode", counting("decoded", shards.decode))
    monkeypatch.setattr(Tokenizer, "encode", counting("encoded", Tokenizer.encode))
    return counts


def episodes(folder, tokenizer, place, prompt=PROMPT, examples_of=None):
    return Episodes(ShardReader(folder), prompt, tokenizer, examples_of, place, progress=False)


def require_equal(ours, expected):
    for name in ("tokens", *cache.ARRAY_NAMES):
        one, other = getattr(ours, name), getattr(expected, name)
        assert one.dtype == other.dtype and np.array_equal(one, other), name
    assert ours.fingerprint() == expected.fingerprint()


def entries(place):
    return [path for path in place.iterdir() if path.is_dir()]


def test_a_stage_decodes_once_and_a_second_stage_does_not_encode(folder, tokenizer, tmp_path, work):
    expected = tokenize(ShardReader(folder), PROMPT, tokenizer, progress=False)
    work.update(decoded=0, encoded=0)
    first = episodes(folder, tokenizer, tmp_path)
    labels = read_labels(first)
    require_equal(first.examples, expected)
    assert work["decoded"] == 12 and work["encoded"] > 0 and first.examples.file is not None
    assert labels.ids == read_labels(ShardReader(folder)).ids

    work.update(decoded=0, encoded=0)
    second = episodes(folder, tokenizer, tmp_path)
    require_equal(second.examples, expected)
    assert work == {"decoded": 0, "encoded": 0}
    assert len(read_labels(second)) == len(labels) and work == {"decoded": 12, "encoded": 0}


def test_without_a_cache_a_stage_decodes_once_too(folder, tokenizer, tmp_path, work):
    ours = episodes(folder, tokenizer, None)
    read_labels(ours)
    require_equal(ours.examples, tokenize(ShardReader(folder), PROMPT, tokenizer, progress=False))
    assert work["decoded"] == 24 and ours.examples.file is None


def test_an_iteration_that_ends_early_or_is_nested_makes_no_wrong_examples(folder, tokenizer, tmp_path):
    expected = tokenize(ShardReader(folder), PROMPT, tokenizer, progress=False)
    broken_off, nested = episodes(folder, tokenizer, tmp_path / "one"), episodes(folder, tokenizer, tmp_path / "two")
    for _ in broken_off:
        break
    assert not (tmp_path / "one").exists()
    assert sum(1 for one in nested for other in nested if one.id == other.id) == 12
    for ours in (broken_off, nested):
        require_equal(ours.examples, expected)
        (entry,) = entries(tmp_path / ("one" if ours is broken_off else "two"))
        assert sorted(path.name for path in entry.iterdir()) == sorted([ARRAYS, MADE_FROM, TOKENS])


def test_other_episodes_prompts_and_tokenizers_have_entries_of_their_own(folder, tokenizer, tmp_path):
    other_folder = synthetic.write_folder(tmp_path / "episodes", count=12, seed=1)
    other_tokenizer = Tokenizer(synthetic.write_tokenizer(tmp_path / "tokenizer.model", 400))
    place = tmp_path / "cache"
    for ours in (
        (folder, tokenizer, PROMPT),
        (other_folder, tokenizer, PROMPT),
        (folder, other_tokenizer, PROMPT),
        (folder, tokenizer, PromptConfig("webrl", 200)),
        (folder, tokenizer, PromptConfig("compact", 100)),
    ):
        shards, tokens, prompt = ours
        expected = tokenize(ShardReader(shards), prompt, tokens, progress=False)
        require_equal(episodes(shards, tokens, place, prompt).examples, expected)
    assert len(entries(place)) == 5


@pytest.mark.parametrize("name", ["bos_id", "end_of_turn_id", "vocabulary_size"])
def test_special_ids_are_inputs(tokenizer, monkeypatch, name):
    before = inputs(["shard"], PROMPT, tokenizer, step_examples)
    monkeypatch.setattr(tokenizer, name, 77)
    assert inputs(["shard"], PROMPT, tokenizer, step_examples) != before


def test_code_and_libraries_are_inputs(tokenizer, monkeypatch):
    before = inputs(["shard"], PROMPT, tokenizer, step_examples)
    assert before == inputs(["shard"], PROMPT, tokenizer, step_examples)
    monkeypatch.setattr(cache, "PACKAGES", ("mira_jax.data", "mira_jax.trajectories", "mira_jax.rl"))
    assert inputs(["shard"], PROMPT, tokenizer, step_examples) != before
    monkeypatch.undo()
    monkeypatch.setattr(cache.importlib.metadata, "version", lambda name: "0")
    assert inputs(["shard"], PROMPT, tokenizer, step_examples) != before


def test_examples_of_other_code_are_not_cached(folder, tokenizer, tmp_path):
    def first_steps(trajectory, prompt, tokenizer):
        for number, example in enumerate(step_examples(trajectory, prompt, tokenizer)):
            yield example if number == 0 else Example(example.tokens[:2], [Turn(number, 1, 2)])

    ours = episodes(folder, tokenizer, tmp_path, examples_of=first_steps)
    require_equal(ours.examples, tokenize(ShardReader(folder), PROMPT, tokenizer, first_steps, progress=False))
    assert ours.examples.file is None and not list(tmp_path.iterdir())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda entry: flip(entry / TOKENS), f"the SHA-256 of {TOKENS} is not"),
        (lambda entry: flip(entry / ARRAYS), f"the SHA-256 of {ARRAYS} is not"),
        (lambda entry: (entry / TOKENS).write_bytes((entry / TOKENS).read_bytes()[:-8]), f"the SHA-256 of {TOKENS} is not"),
        (lambda entry: (entry / TOKENS).write_bytes((entry / TOKENS).read_bytes()[:-3]), "multiple of the data-type size"),
        (lambda entry: (entry / TOKENS).unlink(), "No such file"),
        (lambda entry: (entry / MADE_FROM).unlink(), "cannot be read"),
        (lambda entry: (entry / MADE_FROM).write_text("{}"), "names other inputs"),
        (lambda entry: (entry / MADE_FROM).write_text((entry / MADE_FROM).read_text().replace("compact", "webrl")), "names other inputs"),
    ],
)
def test_a_damaged_entry_is_made_again_and_reported(folder, tokenizer, tmp_path, caplog, monkeypatch, damage, message):
    expected = tokenize(ShardReader(folder), PROMPT, tokenizer, progress=False)
    assert len(episodes(folder, tokenizer, tmp_path).examples)
    (entry,) = entries(tmp_path)
    damage(entry)
    monkeypatch.setattr(logging.getLogger("mira_jax"), "propagate", True)
    require_equal(episodes(folder, tokenizer, tmp_path).examples, expected)
    (said,) = {message for message in caplog.messages if "made again" in message}
    assert said.startswith(f"{entry}: damaged, made again: ") and message in said
    caplog.clear()
    require_equal(episodes(folder, tokenizer, tmp_path).examples, expected)
    assert not [message for message in caplog.messages if "made again" in message]


def test_a_failed_pass_leaves_nothing_and_names_the_cause(folder, tokenizer, tmp_path):
    unlabelled = [msgspec.structs.replace(item, outcome=None) for item in ShardReader(folder)]
    write_shard(tmp_path / "episodes" / "episodes-00000.array_record", unlabelled)
    with pytest.raises(UserError, match="has no outcome"):
        read_labels(episodes(tmp_path / "episodes", tokenizer, tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def make(folder, path, place, out):
    time.sleep(0.1)
    out.put(episodes(folder, Tokenizer(path), place).examples.fingerprint())


def test_two_processes_that_make_an_entry_at_once_get_the_same_tokens(folder, tokenizer, tmp_path):
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    started = [context.Process(target=make, args=(folder, tokenizer.path, tmp_path, out)) for _ in range(2)]
    for process in started:
        process.start()
    found = {out.get(timeout=200) for _ in started}
    for process in started:
        process.join()
    assert found == {tokenize(ShardReader(folder), PROMPT, tokenizer, progress=False).fingerprint()}
    assert list(tmp_path.iterdir()) == entries(tmp_path) and len(entries(tmp_path)) == 1


def test_the_second_process_waits_and_reads_what_the_first_made(folder, tokenizer, tmp_path, work):
    first, second = episodes(folder, tokenizer, tmp_path), episodes(folder, tokenizer, tmp_path)
    # As seen by a process that found no entry and then waited for the lock.
    assert second._entry.open() is None
    require_equal(first.examples, tokenize(ShardReader(folder), PROMPT, tokenizer, progress=False))
    work.update(encoded=0)
    assert list(second._cached()) == list(ShardReader(folder)) and work["encoded"] == 0


def test_mapped_examples_are_pickled_without_their_tokens(folder, tokenizer, tmp_path):
    ours = episodes(folder, tokenizer, tmp_path).examples
    data = pickle.dumps(ours)
    assert ours.tokens.tobytes() not in data and len(data) < ours.tokens.nbytes + 100 * ours.steps
    require_equal(pickle.loads(data), ours)
    in_memory = tokenize(ShardReader(folder), PROMPT, tokenizer, progress=False)
    require_equal(pickle.loads(pickle.dumps(in_memory)), ours)
    with pytest.raises(ValueError, match="read-only"):
        ours.tokens[0] = 1


def test_no_episodes_with_tokens_are_cached_too(tokenizer, tmp_path):
    folder = synthetic.write_folder(tmp_path / "episodes", count=2, infra_every=1)
    ours = [episodes(folder, tokenizer, tmp_path / "cache").examples for _ in range(2)]
    require_equal(ours[0], ours[1])
    assert len(ours[0].tokens) == 0 and not ours[0].usable.any()


def test_where_the_cache_is(tmp_path, caplog, monkeypatch):
    assert cache_folder("", tmp_path / "run") is None
    assert not list(tmp_path.iterdir())
    assert cache_folder(None, tmp_path / "run") == tmp_path / "token_cache"
    assert cache_folder(str(tmp_path / "other"), tmp_path / "run") == tmp_path / "other"
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(logging.getLogger("mira_jax"), "propagate", True)
    with pytest.raises(UserError, match=r"file: cannot hold a token cache \(.*\); set data.cache"):
        cache_folder(str(tmp_path / "file"), tmp_path / "run")
    assert cache_folder(None, tmp_path / "file" / "run") is None
    assert "tokens are kept in memory" in caplog.text
    with pytest.raises(UserError, match="an address, not a path"):
        cache_folder("gs://bucket/cache", tmp_path / "run")


def test_the_entry_says_what_it_was_made_from(folder, tokenizer, tmp_path):
    ours = episodes(folder, tokenizer, tmp_path)
    assert ours.examples
    (entry,) = entries(tmp_path)
    made_from = json.loads((entry / MADE_FROM).read_text())["made_from"]
    assert made_from["shards"] == list(ShardReader(folder).sha256)
    assert made_from["prompt"] == {"version": "compact", "max_tokens": 200, "subgoals": False}
    assert made_from["tokenizer"]["sha256"] == tokenizer.sha256
    assert made_from["examples"] == "mira_jax.data.steps.step_examples"
    assert Entry(tmp_path, inputs(made_from["shards"], PROMPT, tokenizer, step_examples)).path == entry
