"""What critics are worth, on made-up episodes whose truth is known."""

import numpy as np
import pytest

from mira_jax.recipes.labels import read_labels
from mira_jax.recipes.quality import critic_quality, describe
from tests.synthetic import trajectory

EPISODES = [trajectory(number, 3, success=number % 4 == 0) for number in range(40)]
LABELS = read_labels(EPISODES)


def test_the_truth_beats_the_baselines_and_their_mean_does_not():
    truth = critic_quality(LABELS, {"value": np.where(LABELS.success, 0.9, 0.1)})["value"]
    assert truth["nll"] == pytest.approx(-np.log(0.9), abs=1e-4) and truth["auroc"] == 1 and not truth["weak"]
    assert truth["constant"] == truth["template"]  # there is one template
    # The other 39 episodes, 3 steps each, with one step of a success and one of a failure added.
    others = -(0.25 * np.log(28 / 119) + 0.75 * np.log(1 - 31 / 119))
    assert truth["constant"]["nll"] == pytest.approx(others, abs=1e-4)
    assert truth["reliability"] == [[0.1, 0.0, 90], [0.9, 1.0, 30]]
    mean = critic_quality(LABELS, {"value": np.full(len(LABELS), 0.4)})["value"]
    assert mean["weak"].startswith("its NLL") and "constant and the template mean" in mean["weak"]


def test_a_potential_that_is_a_clock_is_weak():
    """At the last states of these failures two of three subgoals are done."""
    clock = critic_quality(LABELS, {"potential": np.full(len(LABELS), 0.95)})["potential"]
    assert clock["failures"] == 30 and clock["true_mean"] == pytest.approx(2 / 3, abs=1e-4)
    assert clock["mae"] == pytest.approx(0.95 - 2 / 3, abs=1e-3) and "weak" in clock and clock["weak"]
    assert clock["correlation"] is None and clock["by_share"] == [[0.6667, 0.95, 30]]


def test_a_state_with_more_subgoals_done_than_another_at_the_same_time_should_have_a_higher_potential():
    """Episodes that miss their first subgoal and do the second, against those that do both."""

    def passing(item):
        import msgspec

        steps = [msgspec.structs.replace(step, milestones=(False, *step.milestones[1:])) for step in item.steps]
        return msgspec.structs.replace(item, steps=tuple(steps))

    labels = read_labels([passing(item) if number % 2 else item for number, item in enumerate(EPISODES)])
    broken = np.array([number % 2 for number in range(40) for _ in range(3)], bool)
    assert critic_quality(labels, {"potential": np.where(broken, 0.1, 0.6)})["potential"]["concordance"] == 1
    assert critic_quality(labels, {"potential": np.full(len(labels), 0.3)})["potential"]["concordance"] == 0.5
    assert critic_quality(labels, {"potential": np.where(broken, 0.6, 0.1)})["potential"]["concordance"] == 0


def test_unlabelled_steps_and_missing_scores_are_left_out():
    value = np.where(np.arange(len(LABELS)) < 60, 0.5, np.nan)
    assert critic_quality(LABELS, {"value": value})["value"]["steps"] == 60


def test_people_read_it():
    lines = describe(critic_quality(LABELS, {"value": np.where(LABELS.success, 0.9, 0.1), "potential": LABELS.count + 0.01}))
    assert lines[0] == "V: NLL 0.105, Brier 0.010, AUROC 1.000"
    assert lines[3].startswith("P (potential) at the last states of 30 failures: 0.68 where 0.67 is done, error 0.010 (constant 0.000)")
