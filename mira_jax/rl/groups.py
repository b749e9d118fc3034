"""Group-relative advantages (GRPO): the attempts at one task are compared with each other, without a critic.

Shapes: E episodes.
"""

from typing import Literal, NamedTuple

import numpy as np

SPREAD = 1e-6
"""Rewards of a group that differ by less are equal. Such a group says nothing about which attempt was better."""

Scale = Literal["std", "none"]


class Groups(NamedTuple):
    advantages: np.ndarray
    """float32 [E]; 0 where `used` is false."""
    used: np.ndarray
    """bool [E]: the valid episodes of the groups with a spread."""
    groups: int
    """Number of groups, that is of tasks with an episode."""
    without_spread: int
    """Groups of at least two valid episodes that have the same reward."""
    too_small: int
    """Groups with fewer than two valid episodes."""


def group_advantages(rewards: np.ndarray, group: np.ndarray, valid: np.ndarray, scale: Scale = "std", epsilon: float = 1e-6) -> Groups:
    """A_i = (R_i - mean) / (std + epsilon), over the valid episodes of the group of i (Shao et al. 2024, arXiv 2402.03300, section 4.1.2).

    The standard deviation is that of the population. With `scale` none it is left out (Liu et al. 2025, arXiv 2503.20783): dividing by it
    gives more weight to tasks that nearly always or nearly never succeed.

    Args:
        rewards: [E], finite where valid.
        group: int [E], equal for attempts at the same task.
        valid: bool [E]. Other episodes are neither compared nor used.
    """
    rewards = np.where(valid, rewards, 0).astype(np.float64)
    names, of = np.unique(group, return_inverse=True)

    def per_group(values: np.ndarray) -> np.ndarray:
        return np.bincount(of, values, len(names))

    count = per_group(valid.astype(np.float64))
    mean = per_group(rewards) / np.maximum(count, 1)
    centred = np.where(valid, rewards - mean[of], 0)
    std = np.sqrt(per_group(np.square(centred)) / np.maximum(count, 1))
    largest = np.zeros(len(names))
    np.maximum.at(largest, of, np.abs(centred))
    enough, spread = count >= 2, largest > SPREAD
    used = valid & (enough & spread)[of]
    advantages = centred / (std[of] + epsilon) if scale == "std" else centred
    return Groups(np.where(used, advantages, 0).astype(np.float32), used, len(names), int((enough & ~spread).sum()), int((~enough).sum()))
