"""Packing: every step once, nothing over length, every index right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.data.examples import Examples, one_per_step
from mira_jax.data.packing import PackedBatches, Share, first_fit
from mira_jax.data.pipeline import Batches, split
from mira_jax.errors import UserError


def examples(sizes: list[tuple[int, int]]) -> Examples:
    """Steps of (prompt, response) lengths, whose tokens are all different."""
    lengths = [prompt + response for prompt, response in sizes]
    return one_per_step(
        tokens=np.arange(1, sum(lengths) + 1, dtype=np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        prompt_lengths=np.array([prompt for prompt, _ in sizes], np.int32),
    )


SIZES = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 6)), min_size=1, max_size=40)


@given(sizes=SIZES, rows=st.integers(1, 5), spare=st.integers(0, 30), seed=st.integers(0, 3), responses=st.booleans())
@settings(max_examples=60, deadline=None)
def test_each_epoch_has_every_step_once_with_its_own_tokens(sizes, rows, spare, seed, responses):
    data = examples(sizes)
    advantage = np.arange(len(sizes), dtype=np.float32) + 0.5
    row_length = max(p + r - 1 if responses else p for p, r in sizes) + spare
    options = {"row_length": row_length, "rows": rows, "epochs": 2, "seed": seed, "reads_responses": responses}
    packed = PackedBatches(data, np.arange(len(sizes)), {"advantage": advantage}, **options)
    seen = []
    shapes = set()
    for k in range(len(packed)):
        batch = packed[k]
        shapes.add(tuple((name, array.shape, str(array.dtype)) for name, array in batch.items()))
        assert batch["tokens"].shape == (rows, row_length)
        assert batch["step_mask"].sum() > 0
        for b in range(rows):
            for s in range(batch["step_id"].shape[1]):
                j = batch["step_id"][b, s]
                where = np.flatnonzero(batch["segment_ids"][b] == s + 1)
                assert (j >= 0) == bool(batch["step_mask"][b, s]) == bool(len(where))
                if j < 0:
                    continue
                seen.append((k, int(j)))
                prompt, response = data.prompt(j), data.response(j)
                whole = np.concatenate([prompt, response[:-1]]) if responses else prompt
                assert np.array_equal(batch["tokens"][b, where], whole)
                assert np.array_equal(where, np.arange(where[0], where[0] + len(whole)))
                assert np.array_equal(batch["positions"][b, where], np.arange(len(whole)))
                assert batch["last_prompt_index"][b, s] == where[0] + len(prompt) - 1
                assert batch["advantage"][b, s] == advantage[j]
                mine = (batch["response_segment"][b] == s) & (batch["response_mask"][b] > 0)
                if responses:
                    assert np.array_equal(batch["response_targets"][b, mine], response)
                    inputs = batch["tokens"][b, batch["response_index"][b, mine]]
                    assert np.array_equal(inputs, np.concatenate([prompt[-1:], response[:-1]]))
                else:
                    assert not mine.any()
        padding = batch["segment_ids"] == 0
        assert not batch["tokens"][padding].any() and not batch["positions"][padding].any()
    assert len(shapes) == 1
    for epoch, (first, last) in enumerate(zip([0, *packed.epoch_ends], packed.epoch_ends, strict=False)):
        assert sorted(j for k, j in seen if first <= k < last) == list(range(len(sizes))), epoch


def test_first_fit_fills_the_first_row_with_room():
    assert list(first_fit(np.array([5, 4, 3, 2, 6]), 8)) == [[0, 2], [1, 3], [4]]


def test_first_fit_packs_many_short_steps_tightly():
    lengths = np.random.default_rng(0).integers(50, 400, 3000)
    rows = list(first_fit(lengths, 1024))
    assert sorted(index for row in rows for index in row) == list(range(3000))
    assert max(lengths[row].sum() for row in rows) <= 1024
    assert lengths.sum() / (1024 * len(rows)) > 0.95


def test_epochs_differ_and_seeds_decide():
    data = examples([(3, 2)] * 32)
    order = [PackedBatches(data, np.arange(32), {}, row_length=4, rows=32, epochs=2, seed=seed) for seed in (0, 0, 1)]
    first = [batches[0]["step_id"].ravel().tolist() for batches in order]
    assert first[0] == first[1] != first[2]
    assert first[0] != order[0][1]["step_id"].ravel().tolist()


def test_rows_of_an_epoch_are_spread_evenly_over_its_batches():
    packed = PackedBatches(examples([(3, 2)] * 9), np.arange(9), {}, row_length=4, rows=8, epochs=1)
    assert [len(packed.row_examples(k)) for k in range(len(packed))] == [5, 4]


def test_a_run_may_end_within_an_epoch():
    data = examples([(3, 2)] * 10)
    assert len(PackedBatches(data, np.arange(10), {}, row_length=4, rows=1, epochs=1.5)) == 15
    assert len(PackedBatches(data, np.arange(10), {}, row_length=4, rows=1, epochs=0.3)) == 3
    assert len(PackedBatches(data, np.arange(10), {}, row_length=4, rows=1, batches=25)) == 25


def test_a_step_longer_than_a_row_is_refused_or_counted():
    data = examples([(10, 2), (3, 2)])
    with pytest.raises(UserError, match=r"1 of 2 steps are longer than 8 tokens \(the longest has 11\)"):
        PackedBatches(data, np.arange(2), {}, row_length=8, rows=1)
    packed = PackedBatches(data, np.arange(2), {}, row_length=8, rows=1, drop_too_long=True)
    assert packed.dropped == 1 and packed.steps.tolist() == [1]


def test_the_iterator_goes_on_from_its_state():
    packed = PackedBatches(examples([(3, 2)] * 12), np.arange(12), {}, row_length=4, rows=2, epochs=3)
    iterator = Batches(packed)
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    rest = [batch["step_id"].tolist() for batch in iterator]
    again = Batches(packed)
    again.set_state(state)
    assert [batch["step_id"].tolist() for batch in again] == rest
    assert len(rest) == len(packed) - 5


def test_processes_share_the_rows_of_a_batch():
    packed = PackedBatches(examples([(3, 2)] * 12), np.arange(12), {}, row_length=4, rows=4)
    parts = [next(Batches(Share(packed, rows)))["step_id"] for rows in ([0, 2], [1, 3])]
    whole = packed[0]["step_id"]
    assert np.array_equal(parts[0], whole[[0, 2]]) and np.array_equal(parts[1], whole[[1, 3]])


def test_a_share_of_rows_is_padded_as_the_whole_batch_is():
    packed = PackedBatches(examples([(3, 2)] * 5), np.arange(5), {}, row_length=4, rows=4)
    assert len(packed.row_examples(0)) == 3
    share = Share(packed, [2, 3])
    assert len(share) == len(packed)
    for name, array in packed[0].items():
        assert np.array_equal(share[0][name], array[2:]), name
    with pytest.raises(IndexError):
        share[len(packed)]


def test_holdout_takes_whole_episodes():
    episode = np.repeat(np.arange(10), 3)
    held = split(episode, 0.2, seed=0)
    assert held.sum() == 6
    assert all(len(set(held[episode == e])) == 1 for e in range(10))
