"""Agreement of an ORM with the rules, worked out by hand and with scipy."""

import msgspec
import numpy as np
import pytest
import scipy.stats

from mira_jax.classification import confusion
from mira_jax.intervals import share_interval, wilson
from mira_jax.recipes.agreement import agreement, describe
from mira_jax.trajectories.records import Outcome, Status
from tests.synthetic import trajectory


def test_the_confusion_of_ten_by_hand():
    #                  TP TP TP FP FN FN TN TN TN TN
    decided = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    truth = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0], bool)
    counts = confusion(decided, truth)
    assert counts == (3, 1, 2, 4)
    assert (counts.accuracy, counts.precision, counts.recall) == (0.7, 0.75, 0.6)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    never = confusion(np.zeros(3, bool), np.zeros(3, bool))
    assert never.accuracy == 1 and np.isnan([never.precision, never.recall, never.f1]).all()


def test_with_one_episode_per_task_the_interval_is_wilson_s():
    expected = scipy.stats.binomtest(7, 10).proportion_ci(method="wilson")
    assert share_interval(np.arange(10) < 7, np.arange(10)) == pytest.approx((expected.low, expected.high))


def test_attempts_that_always_agree_count_once_per_task():
    # 6 tasks of 5 attempts, each all right or all wrong: k / (k - 1) sum_g (5 (y - p))^2 / 30^2 = p (1 - p) / 5, so 5 of 30 are left.
    hits = np.repeat([1, 1, 1, 1, 0, 0], 5)
    low, high = share_interval(hits, np.repeat(np.arange(6), 5))
    assert (low, high) == pytest.approx(tuple(map(float, wilson(20, 30, effective=5))))
    all_right = share_interval(np.ones(30, bool), np.repeat(np.arange(6), 5))
    assert all_right == pytest.approx(tuple(map(float, wilson(6, 6))))
    assert share_interval([], []) == (0, 1)


def test_attempts_that_vary_more_within_tasks_than_between_count_no_more_than_their_number():
    hits = np.tile([1, 0], 10)
    assert share_interval(hits, np.repeat(np.arange(10), 2)) == pytest.approx(tuple(map(float, wilson(10, 20))))


def test_only_outcomes_by_rule_are_compared():
    episodes = [trajectory(number, 2, success=number < 4) for number in range(8)]
    episodes.append(trajectory(8, 2, status=Status.INFRA_ERROR))
    by_model = trajectory(9, 2, success=True)
    episodes.append(msgspec.structs.replace(by_model, outcome=Outcome(success=True, score=1.0, source="orm")))
    episodes.append(trajectory(10, 2, success=True))
    p = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.1, 0.4, 0.9, 0.9, np.nan])
    found = agreement(episodes, p)
    assert found["confusion"] == {"true_positives": 3, "false_positives": 1, "false_negatives": 1, "true_negatives": 3}
    assert (found["episodes"], found["tasks"], found["success_rate"], found["constant"]) == (8, 8, 0.5, 0.5)
    interval = scipy.stats.binomtest(3, 4).proportion_ci(method="wilson")
    for name, value in (("accuracy", 0.75), ("precision", 0.75), ("recall", 0.75)):
        assert found[name]["value"] == value
    assert found["precision"]["interval"] == pytest.approx([interval.low, interval.high], abs=1e-4)
    # Of the 16 pairs of a success and a failure, the success at 0.2 is below 0.6, 0.3 and 0.4.
    assert found["auroc"] == pytest.approx(13 / 16, abs=1e-4) and found["f1"] == 0.75 and found["weak"] == ""
    assert describe(found)[0].startswith("against rules on 8 episodes of 8 tasks: accuracy 0.750 [")
    assert agreement(episodes[8:], p[8:]) == {}


def test_a_model_no_better_than_a_constant_is_weak():
    episodes = [trajectory(number, 1, success=number < 1) for number in range(5)]
    found = agreement(episodes, np.full(5, 0.1))
    assert found["weak"] == "its accuracy 0.8 is not above that of a constant, 0.8"
    assert found["precision"] == {"value": None, "interval": None} and found["auroc"] == 0.5
    assert "precision undefined" in describe(found)[0] and describe(found)[-1].startswith("weak: ")
