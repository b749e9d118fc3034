import numpy as np
import pytest

from mira_jax.trajectories.token_columns import TokenColumn

COLUMN = TokenColumn(np.array([[1, 10], [2, 20], [3, 30], [4, 40], [5, 50]], np.int32), np.array([0, 2, 2, 5]))


def test_steps_are_taken_in_any_order_and_none_is_empty():
    taken = COLUMN.take(np.array([2, -1, 0, 1, 2]))
    assert [taken[step].tolist() for step in range(5)] == [[[3, 30], [4, 40], [5, 50]], [], [[1, 10], [2, 20]], [], COLUMN[2].tolist()]
    assert taken.values.dtype == np.int32
    nothing = COLUMN.take(np.zeros(0, int))
    assert nothing.values.shape == (0, 2) and nothing.take(np.array([-1])).starts.tolist() == [0, 0]


def test_the_numbers_of_packed_tokens_go_to_their_steps():
    """Row 0 holds steps 2 and 0, with padding; row 1 holds no step."""
    batch = {
        "step_id": np.array([[2, 0], [-1, -1]]),
        "response_segment": np.array([[0, 0, 0, 1, 1, 0], [0] * 6]),
        "response_mask": np.array([[1, 1, 1, 1, 1, 0], [0] * 6], np.float32),
    }
    column = TokenColumn(np.zeros(5, np.float32), COLUMN.starts)
    column.fill(batch, np.array([[7, 8, 9, 1, 2, 99], [99] * 6]))
    assert column.values.tolist() == [1, 2, 7, 8, 9]


@pytest.mark.parametrize("starts", [[0, 2, 4], [1, 2, 5], [0, 3, 2, 5]])
def test_starts_that_do_not_divide_the_tokens_are_refused(starts):
    with pytest.raises(ValueError, match="do not divide 5 tokens"):
        TokenColumn(COLUMN.values, np.array(starts))
