"""Advantages: the difference between the result of a response and the expected result of the policy in that state.

Steps of many episodes are concatenated in flat arrays of length N. `last` is true at the end of an episode. V is the
probability of success, and 0 after the last step.
"""

import numpy as np
from jaxtyping import Bool, Float

from mira_jax.rl.shaping import following


def outcome_rewards(success: Bool[np.ndarray, " N"], last: Bool[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """r_t: 1 at the last step of a success, 0 elsewhere. `success` holds the episode's outcome at every step."""
    return (np.asarray(success, bool) & np.asarray(last, bool)).astype(np.float32)


def returns(rewards: Float[np.ndarray, " N"], last: Bool[np.ndarray, " N"], gamma: float = 1.0) -> Float[np.ndarray, " N"]:
    """G_t = sum_{i >= t} gamma^{i-t} r_i over the rest of the episode."""
    rewards_N, last_N = np.asarray(rewards, np.float64), np.asarray(last, bool)
    returns_N = np.empty_like(rewards_N)
    after = 0.0
    for t in range(len(rewards_N) - 1, -1, -1):
        after = rewards_N[t] + (0.0 if last_N[t] else gamma * after)
        returns_N[t] = after
    return returns_N.astype(np.float32)


def td_returns(
    rewards: Float[np.ndarray, " N"], values: Float[np.ndarray, " N"], last: Bool[np.ndarray, " N"], lambda_: float, gamma: float = 1.0
) -> Float[np.ndarray, " N"]:
    """The lambda-return (Sutton and Barto 2018, eq. 12.2), the target of TD(lambda), by its recursion:

        G_t = r_t + gamma [ (1 - lambda) V(s_{t+1}) + lambda G_{t+1} ],   r_t alone at the last step

    lambda = 1 gives the Monte-Carlo return, lambda = 0 the one-step target.
    """
    rewards_N, values_N, last_N = np.asarray(rewards, np.float64), np.asarray(values, np.float64), np.asarray(last, bool)
    returns_N = np.empty_like(rewards_N)
    for t in range(len(rewards_N) - 1, -1, -1):
        after = 0.0 if last_N[t] else (1 - lambda_) * values_N[t + 1] + lambda_ * returns_N[t + 1]
        returns_N[t] = rewards_N[t] + gamma * after
    return returns_N.astype(np.float32)


def doubly_robust(
    rewards: Float[np.ndarray, " N"],
    shaped: Float[np.ndarray, " N"],
    values: Float[np.ndarray, " N"],
    last: Bool[np.ndarray, " N"],
    lambda_: float = 0.5,
    gamma: float = 1.0,
) -> Float[np.ndarray, " N"]:
    """MiRA (arXiv 2603.19685), with WebRL's lambda = 0.5 (arXiv 2411.02337, eq. 9):

        A_t = lambda [ r'_t + gamma V(s_{t+1}) - V(s_t) ] + (1 - lambda) [ G_t - V(s_t) ]

    G_t is the return of the true reward, discounted by the same gamma. With r' = r and gamma = 1 this is WebRL's advantage;
    lambda = 1 is the one-step advantage and lambda = 0 the Monte-Carlo advantage.

    Args:
        rewards: r_t, the true reward.
        shaped: r'_t, by `shaping.shaped_rewards`.
        values: V(s_t) in [0, 1].
        gamma: the default is 1 because V is trained on the undiscounted outcome. WebRL's table gives 0.9.
    """
    values_N = np.asarray(values)
    one_step_N = np.asarray(shaped) + gamma * following(values_N, last) - values_N
    monte_carlo_N = returns(rewards, last, gamma) - values_N
    return lambda_ * one_step_N + (1 - lambda_) * monte_carlo_N


def webrl_code(
    success: Bool[np.ndarray, " N"], values: Float[np.ndarray, " N"], last: Bool[np.ndarray, " N"], gamma: float = 0.9
) -> Float[np.ndarray, " N"]:
    """The advantage that WebRL's released code trains on (`webrl/algorithms/webrl/trainer.py`), +1 or -0.6:

        A_t = clip( V(s_{t+1}) - V(s_t) - 0.05 + r_t + G_t, -1, 1 ),   then +1 where A_t >= 0, -0.6 elsewhere

    In that code the outcome is copied to every step as its reward, G_t is the discounted sum of these rewards, and the state
    after the last step is the last state itself. V is the minimum of two heads. With a single head, pass its V.
    """
    last_N, values_N = np.asarray(last, bool), np.asarray(values)
    rewards_N = np.asarray(success, np.float32)
    next_N = np.where(last_N, values_N, following(values_N, last_N))
    advantages_N = np.clip(next_N - values_N - 0.05 + rewards_N + returns(rewards_N, last_N, gamma), -1.0, 1.0)
    return np.where(advantages_N >= 0, 1.0, -0.6).astype(np.float32)


def digirl(
    rewards: Float[np.ndarray, " N"], values: Float[np.ndarray, " N"], last: Bool[np.ndarray, " N"], decay: float
) -> Float[np.ndarray, " N"]:
    """DigiRL's step advantage (arXiv 2406.11896, eq. 4.3), for an episode with steps 0 ... H and the outcome r_H:

        A_h = decay^(H-h) r_H + (1 - decay^(H-h)) [ V(s_{h+1}) + r_h - V(s_h) ],  V = 0 after the last step

    Args:
        rewards: r_h, 1 at the last step of a success and 0 elsewhere.
        decay: in [0, 1]; DigiRL's lambda. 1 gives the Monte-Carlo return, 0 the one-step advantage except at the last step.
    """
    values_N, last_N, rewards_N = np.asarray(values, np.float64), np.asarray(last, bool), np.asarray(rewards, np.float64)
    ends = np.flatnonzero(last_N)
    end_N = ends[np.searchsorted(ends, np.arange(len(last_N)))]
    weight_N = np.power(float(decay), end_N - np.arange(len(last_N)))
    one_step_N = following(values_N, last_N) + rewards_N - values_N
    return (weight_N * rewards_N[end_N] + (1 - weight_N) * one_step_N).astype(np.float32)


def clip_impossible(
    advantages: Float[np.ndarray, " N"], reference_log_probs: Float[np.ndarray, " N"], span: float
) -> Float[np.ndarray, " N"]:
    """The advantages, clipped to what a response can have under pi_ref:

        A(s, a) = Q(s, a) - V(s) = (1 - pi_ref(a|s)) [ Q(s, a) - E( Q(s, b) | b != a ) ],   so  |A(s, a)| <= (1 - pi_ref(a|s)) span

    A response that pi_ref gives with certainty has no alternative, and whatever the critics say of it is noise.

    Args:
        reference_log_probs: log pi_ref(a|s) of the whole response.
        span: the difference between the largest and the smallest possible Q.
    """
    most_N = span * -np.expm1(np.minimum(np.asarray(reference_log_probs, np.float64), 0.0))
    return np.clip(np.asarray(advantages), -most_N, most_N).astype(np.float32)


def room_to_rise(advantages: Float[np.ndarray, " N"], reference_log_probs: Float[np.ndarray, " N"], beta: float) -> float:
    """The share of the rise that MiRA's loss asks for and that probabilities allow:

        sum min(A / beta, -log pi_ref) / sum A / beta,   over the steps with A > 0

    The loss is least where log pi = log pi_ref + A / beta, and log pi is at most 0. 1 if no step has A > 0.
    """
    asked_N = np.maximum(np.asarray(advantages, np.float64), 0) / beta
    allowed_N = np.minimum(asked_N, -np.asarray(reference_log_probs, np.float64))
    return float(allowed_N.sum() / asked_N.sum()) if asked_N.any() else 1.0


def worth_imitating(returns_of_episodes: Float[np.ndarray, " E"], percentile: float = 70.0) -> Bool[np.ndarray, " E"]:
    """Filtered behaviour cloning: the episodes at or above a percentile of return (WebRL, table 4: the 70th).

    If the percentile equals the lowest return, only the episodes above it are kept. With outcomes of 0 and 1, these are the
    successes, whatever their number. If all returns are equal, all episodes are kept if the returns are positive, and none
    otherwise.
    """
    returns_E = np.asarray(returns_of_episodes, np.float64)
    if not len(returns_E):
        return np.zeros(0, bool)
    lowest, threshold = returns_E.min(), np.percentile(returns_E, percentile)
    if returns_E.max() == lowest:
        return np.full(len(returns_E), bool(lowest > 0))
    return (returns_E >= threshold) & (returns_E > lowest)
