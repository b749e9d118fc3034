"""Progress labels: the progress of a trajectory along its subgoals in each state. They are the targets of the potential critic.

Time t is the number of steps taken. State s_t is the state that the policy saw before step t (the first is step 0). A
trajectory of T steps has the states s_0 ... s_{T-1}, in which an action was taken, and the final state s_T. A subgoal that is
first done after step i is done in every state from s_{i+1} on: its completion time is i + 1. In s_0 no subgoal is done.
"""

import numpy as np
from jaxtyping import Bool, Float


def completion_times(milestones: Bool[np.ndarray, "T K"]) -> Float[np.ndarray, " K"]:
    """The completion time of each subgoal: t_1 <= t_2 <= ... <= t_K, in steps taken. Infinite if it is never done.

    Subgoals count in order: a subgoal that is done before an earlier one counts from the time at which the earlier one is
    done. A subgoal that was done once stays done, even if the page no longer shows it.

        t_j = max_{i <= j} min { t : z_{t-1, i} = 1 }

    Args:
        milestones: z. Row i contains which subgoals are done after step i.
    """
    z_TxK = np.asarray(milestones, bool)
    first_K = np.where(z_TxK.any(axis=0), z_TxK.argmax(axis=0) + 1.0, np.inf) if len(z_TxK) else np.full(z_TxK.shape[1], np.inf)
    return np.maximum.accumulate(first_K)


def done_before(milestones: Bool[np.ndarray, "T K"]) -> Bool[np.ndarray, "T K"]:
    """Which subgoals are done in the states s_0 ... s_{T-1}, in any order: in s_t, those that were done after a step before t."""
    z_TxK = np.maximum.accumulate(np.asarray(milestones, bool), axis=0)
    return np.concatenate([np.zeros_like(z_TxK[:1]), z_TxK[:-1]])


def ordered_shares(times: Float[np.ndarray, " K"], steps: int) -> Float[np.ndarray, " T+1"]:
    """The share of subgoals that are done in order, in the states s_0 ... s_T: |{ j : t_j <= t }| / K, without interpolation.

    Args:
        times: completion times t_1 <= ... <= t_K, K >= 1, as `completion_times` gives them.
        steps: T.
    """
    times_K = np.asarray(times, np.float64)
    return (np.searchsorted(times_K, np.arange(steps + 1), side="right") / len(times_K)).astype(np.float32)


def before_last_milestone(times: Float[np.ndarray, " K"], steps: int, success: bool) -> Bool[np.ndarray, " T"]:
    """Whether a subgoal is done in order by step t or a later one: t < max { t_j : t_j finite }. True everywhere in a success."""
    if success:
        return np.ones(steps, bool)
    times_K = np.asarray(times, np.float64)
    return np.arange(steps) < times_K[np.isfinite(times_K)].max(initial=0.0)


def progress_labels(times: Float[np.ndarray, " K"], steps: int, success: bool) -> Float[np.ndarray, " T+1"]:
    """p*_t of the states s_0 ... s_T: the fraction of subgoals done, linear in time between them.

    MiRA (arXiv 2603.19685): for t in [t_j, t_{j+1}], with t_0 = 0 and w = (t - t_j) / (t_{j+1} - t_j),

        p*_t = (1 - w) j/K + w (j+1)/K

    and the last subgoal is anchored to the end, t_K = T, so that p*_T = 1. Three subgoals done at 2, 4 and any later
    time of 9 steps give 0 to 1/3 on [0, 2], 1/3 to 2/3 on [2, 4], 2/3 to 1 on [4, 9].

    The paper does not specify three cases. In a success, a subgoal that was never observed is skipped, and the label is
    linear from the subgoal before it to the subgoal after it. When several subgoals are done at the same time, the highest
    counts. In a failure, the label rises to the last subgoal reached and then stays constant.

    Args:
        times: completion times t_1 <= ... <= t_K, K >= 1, as `completion_times` gives them.
        steps: T >= 1.
        success: whether the trajectory reached its goal.

    Raises:
        ValueError: no subgoals, or no steps.
    """
    times_K = np.asarray(times, np.float64)
    count = len(times_K)
    if not count or steps < 1:
        raise ValueError(f"progress needs at least one subgoal and one step, not {count} and {steps}")
    inner_J = times_K[: count - 1] if success else times_K
    reached_J = inner_J[np.isfinite(inner_J)]
    anchors = np.concatenate([[0.0], reached_J, [float(steps)] if success else []])
    heights = np.concatenate([np.arange(len(reached_J) + 1) / count, [1.0] if success else []])

    t_S = np.arange(steps + 1, dtype=np.float64)
    below_S = np.searchsorted(anchors, t_S, side="right") - 1
    above_S = np.minimum(below_S + 1, len(anchors) - 1)
    span_S = np.where(above_S > below_S, anchors[above_S] - anchors[below_S], 1.0)
    w_S = np.where(above_S > below_S, (t_S - anchors[below_S]) / span_S, 0.0)
    return ((1 - w_S) * heights[below_S] + w_S * heights[above_S]).astype(np.float32)
