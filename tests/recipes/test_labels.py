import msgspec
import numpy as np
import pytest

from mira_jax.errors import UserError
from mira_jax.recipes.labels import column, fold_of, mean_of_milestones, read_labels
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.side_tables import SideTable
from tests.synthetic import trajectory


def test_each_step_has_the_label_of_the_state_before_it():
    # In these episodes subgoal j is done after step j, and a failure misses its last subgoal.
    labels = read_labels([trajectory(0, 3, success=True), trajectory(1, 2, success=False)])
    assert labels.ids == ["episode-0-0"] * 3 + ["episode-0-1"] * 2
    assert labels.numbers.tolist() == [0, 1, 2, 0, 1]
    assert labels.last.tolist() == [False, False, True, False, True]
    assert labels.success.tolist() == [True] * 3 + [False] * 2
    np.testing.assert_allclose(labels.progress, [0, 1 / 3, 2 / 3, 0, 1 / 2], atol=1e-6)


def test_infrastructure_errors_are_no_failures():
    labels = read_labels([trajectory(0, 2, success=True), trajectory(1, 2, status=Status.INFRA_ERROR)])
    assert labels.sound.tolist() == [True, True, False, False]
    assert labels.episodes == 1


def test_an_episode_that_was_not_judged_is_named():
    unjudged = msgspec.structs.replace(trajectory(7, 2), outcome=None)
    with pytest.raises(UserError, match=r"episode-0-7 has no outcome; label these episodes first"):
        read_labels([unjudged])


def test_an_episode_without_milestones_has_no_progress():
    bare = trajectory(0, 2, success=True)
    bare = msgspec.structs.replace(bare, steps=tuple(msgspec.structs.replace(step, milestones=()) for step in bare.steps))
    assert np.isnan(read_labels([bare]).progress).all()


def test_partly_labelled_steps_are_named():
    partly = trajectory(3, 2, success=True)
    partly = msgspec.structs.replace(partly, steps=(partly.steps[0], msgspec.structs.replace(partly.steps[1], milestones=(True,))))
    with pytest.raises(UserError, match="episode-0-3: step 1 has 1 milestones for 2 subgoals"):
        read_labels([partly])


def test_columns_come_from_whichever_table_has_the_step():
    labels = read_labels([trajectory(0, 2), trajectory(1, 1), trajectory(2, 1, status=Status.INFRA_ERROR)])
    first = SideTable(["episode-0-0"] * 2, np.array([1, 0]), {"value": np.array([0.2, 0.1])})
    second = SideTable(["episode-0-1"], np.array([0]), {"value": np.array([0.3])})
    np.testing.assert_allclose(column(labels, [first, second], "value"), [0.1, 0.2, 0.3, 0.0])
    with pytest.raises(UserError, match="no value for step 0 of trajectory episode-0-1"):
        column(labels, [first], "value")
    with pytest.raises(UserError, match="none has a column potential"):
        column(labels, [first, second], "potential")
    broken = SideTable(["episode-0-0"] * 2 + ["episode-0-1"], np.array([0, 1, 0]), {"value": np.array([0.1, np.nan, 0.2])})
    with pytest.raises(UserError, match="value of step 1 of trajectory episode-0-0 is nan"):
        column(labels, [broken], "value")


def test_milestones_of_episodes_with_different_numbers_of_subgoals():
    """The failure of two steps does its first subgoal after step 0, and never its second."""
    labels = read_labels([trajectory(0, 3, success=True), trajectory(1, 2, success=False), trajectory(2, 2, status=Status.INFRA_ERROR)])
    assert labels.subgoals.tolist() == [3, 3, 3, 2, 2, 0, 0]
    assert labels.done.astype(int).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert labels.reached.astype(int).tolist() == [[1, 1, 1]] * 3 + [[1, 0, 0]] * 2 + [[0, 0, 0]] * 2
    np.testing.assert_allclose(labels.count, [0, 1 / 3, 2 / 3, 0, 1 / 2, np.nan, np.nan], atol=1e-6)
    np.testing.assert_allclose(labels.final_count, [1, 1, 1, 1 / 2, 1 / 2, np.nan, np.nan], atol=1e-6)
    np.testing.assert_allclose(labels.ordered, [0, 1 / 3, 2 / 3, 0, 1 / 2, np.nan, np.nan], atol=1e-6)
    assert labels.before_last_milestone.tolist() == [True, True, True, True, False, False, False]


def test_the_mean_of_the_milestone_heads_is_over_a_task_s_own_subgoals():
    labels = read_labels([trajectory(0, 3, success=True), trajectory(1, 2, success=False)])
    columns = {"milestone_1": np.full(5, 0.9), "milestone_2": np.full(5, 0.5), "milestone_3": np.full(5, 0.1)}
    np.testing.assert_allclose(mean_of_milestones(labels, columns), [0.5, 0.5, 0.5, 0.7, 0.7], atol=1e-6)


def test_folds_are_of_tasks_and_do_not_depend_on_the_other_tasks():
    episodes = [trajectory(number % 30, 2) for number in range(60)]
    labels = read_labels(episodes)
    folds = labels.folds(4)
    assert folds.tolist() == [fold_of(f"synthetic.copy.train.{number % 30} {number % 30}", 4) for number in range(60) for _ in range(2)]
    assert set(folds) == {0, 1, 2, 3}
    assert read_labels(episodes[7:9]).folds(4).tolist() == folds[14:18].tolist()
