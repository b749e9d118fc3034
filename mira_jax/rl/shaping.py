"""Rewards shaped by the potential critic.

Steps of many episodes are concatenated in flat arrays of length N. `last` is true at the end of an episode.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

AtEnd = Literal["hold", "zero", "reached"]


def following(values: Float[np.ndarray, " N"], last: Bool[np.ndarray, " N"], after_end: float = 0.0) -> Float[np.ndarray, " N"]:
    """values[t + 1] within each episode, and `after_end` for its last step."""
    values_N, last_N = np.asarray(values), np.asarray(last, bool)
    shifted_N = np.append(values_N[1:], np.asarray(after_end, values_N.dtype))
    return np.where(last_N, np.asarray(after_end, values_N.dtype), shifted_N)


def shaped_rewards(
    rewards: Float[np.ndarray, " N"],
    potentials: Float[np.ndarray, " N"],
    last: Bool[np.ndarray, " N"],
    alpha: float,
    discount: float = 1.0,
    at_end: AtEnd = "hold",
    final: Float[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, " N"]:
    """MiRA (arXiv 2603.19685), with alpha = 0.3 and discount = 1 there:

        r'_t = r_t + alpha [ discount P(s_{t+1}) - P(s_t) ]

    A critic does not give P(s_T), the potential of the final state, because the policy takes no action there. `hold` leaves the
    last step unshaped. `reached` takes P(s_T) from `final`. `zero` takes P(s_T) = 0, so that with `discount` = gamma this is
    potential-based shaping in the strict sense (Ng, Harada and Russell 1999): the shaping terms of an episode sum to
    -alpha P(s_0) for any actions.

    Args:
        rewards: r_t, 1 at the last step of a success and 0 elsewhere.
        potentials: P(s_t) in [0, 1].
        last: true at the end of an episode.
        alpha: 0 gives the rewards unchanged, which is WebRL's objective.
        final: P(s_T) of each step's episode, for `reached`.

    Raises:
        ValueError: `at_end` is unknown, or is `reached` without `final`.
    """
    if at_end not in ("hold", "zero", "reached") or (at_end == "reached" and final is None):
        raise ValueError(f"at_end: {at_end!r} is unknown, or lacks the final potentials")
    rewards_N, potentials_N, last_N = np.asarray(rewards), np.asarray(potentials), np.asarray(last, bool)
    next_N = following(potentials_N, last_N)
    if at_end == "reached":
        next_N = np.where(last_N, np.asarray(final), next_N)
    bracket_N = discount * next_N - potentials_N
    if at_end == "hold":
        bracket_N = np.where(last_N, 0.0, bracket_N)
    return rewards_N + alpha * bracket_N
