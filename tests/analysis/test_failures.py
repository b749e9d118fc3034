"""Classes of failure and key decision steps, on episodes written out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_jax.trajectories.records import Action, Outcome, Page, Policy, Status, Step, Task, Trajectory
from rollouts.analysis.failures import Failure, classify, key_step
from rollouts.stuck import StuckRule, loop_start

TASK = Task(id="t", suite="s", sites=("shop",), template="t", split="test", seed=0, intent="do it", start_url="__SHOP__/", horizon=20)


def steps(moves, milestones=None):
    """One step a letter: `a` clicks element a, `?` is a response that did not parse."""
    return tuple(
        Step(
            index=index,
            page=Page(url="__SHOP__/", observation=""),
            response="gibberish" if move == "?" else f'do(action="Click", element="{move}")',
            action=None if move == "?" else Action(name="Click", element=move),
            error="can't parse" if move == "?" else None,
            milestones=milestones[index] if milestones else (),
        )
        for index, move in enumerate(moves)
    )


def episode(moves, status, success=False, milestones=None, judged=True):
    return Trajectory(
        id="id",
        task=TASK,
        policy=Policy(name="p"),
        steps=steps(moves, milestones),
        status=status,
        outcome=Outcome(success=success, score=float(success), source="rule") if judged else None,
    )


def test_successes_and_unjudged_episodes_have_no_class():
    assert classify(episode("ab", Status.FINISHED, success=True)) is None
    assert classify(episode("ab", Status.HORIZON, judged=False)) is None
    assert classify(episode("aaaaa", Status.INFRA_ERROR)) is None


def test_a_wrong_exit_comes_before_being_stuck():
    assert classify(episode("abaaaa", Status.FINISHED)) is Failure.WRONG_TERMINATION


@pytest.mark.parametrize(
    ("moves", "start"), [("bcaaa", 2), ("aaaa", 0), ("xabababab", 1), ("xyabcabcabc", 2), ("b???", 1), ("xbababab", 1)]
)
def test_repetition_at_the_end_is_stuck_midway(moves, start):
    stuck = episode(moves, Status.HORIZON)
    assert classify(stuck) is Failure.STUCK_MIDWAY
    assert loop_start(stuck.steps) == start
    assert key_step(stuck, []) == start


@pytest.mark.parametrize("moves", ["aaab", "abab", "abcdefg", "aabaab", "", "aa"])
def test_repetition_elsewhere_or_too_short_is_no_loop(moves):
    assert loop_start(steps(moves)) is None


@pytest.mark.parametrize(("moves", "start"), [("aaaaa", 0), ("xaaaaa", 1), ("aaaa", None), ("abababababab", None), ("aaaaab", None)])
def test_a_rule_without_cycles_counts_equal_actions(moves, start):
    assert loop_start(steps(moves), StuckRule(identical=5, longest_cycle=1)) == start


def test_the_engine_calling_it_stuck_is_enough():
    assert classify(episode("abcdef", Status.STUCK)) is Failure.STUCK_MIDWAY


def test_no_reasonable_attempt():
    assert classify(episode("ab", Status.PARSE_FAILURES)) is Failure.NO_REASONABLE_ATTEMPT
    none = [(False, False)] * 5
    assert classify(episode("abcde", Status.HORIZON, milestones=none)) is Failure.NO_REASONABLE_ATTEMPT
    everything = [(False, False), (True, False), (True, False), (True, True), (True, True)]
    assert classify(episode("abcde", Status.HORIZON, milestones=everything)) is Failure.NO_REASONABLE_ATTEMPT


def test_the_rest_is_other():
    some = [(False, False), (True, False), (True, False), (True, False), (True, False)]
    assert classify(episode("abcde", Status.HORIZON, milestones=some)) is Failure.OTHER
    assert classify(episode("abcde", Status.HORIZON)) is Failure.OTHER


def test_the_key_step_is_where_every_success_was_left():
    failed = episode("abcxyz", Status.HORIZON)
    near, far = episode("abcde", Status.FINISHED, success=True), episode("aqq", Status.FINISHED, success=True)
    assert key_step(failed, [near, far]) == 3
    assert key_step(failed, [far]) == 1
    assert key_step(failed, []) is None
    assert key_step(near, [far]) is None
    assert key_step(episode("abc", Status.FINISHED), [near]) == 2, "it followed a success and stopped early"


@given(st.text("abcd", max_size=12), st.text("abcd", min_size=1, max_size=4), st.integers(3, 5))
def test_every_planted_loop_is_found(prefix, cycle, repeats):
    moves = prefix + cycle * repeats
    start = loop_start(steps(moves))
    assert start is not None and start <= len(prefix)
