"""Computes MiRA's progress labels, shaped rewards and advantages for one trajectory.

    python examples/mira_advantages.py

The trajectory has four steps and two subgoals. The first subgoal is done after step 1, the second after step 3, and the task
succeeds. V and P, which critics predict in training, are made up. The script prints one row per step: the progress label p*,
which is the target of P; V and P; the shaped reward r'; and the advantage A. docs/algorithms.md gives the equations.
"""

import numpy as np

from mira_jax.rl.advantages import doubly_robust, outcome_rewards
from mira_jax.rl.progress import completion_times, progress_labels
from mira_jax.rl.shaping import shaped_rewards

MILESTONES = np.array([[False, False], [True, False], [True, False], [True, True]])
"""Row t: which subgoals are done after step t."""
VALUES = np.array([0.4, 0.5, 0.7, 0.6])
POTENTIALS = np.array([0.1, 0.2, 0.6, 0.7])


def main() -> None:
    steps, success = len(MILESTONES), True
    progress = progress_labels(completion_times(MILESTONES), steps, success)
    last = np.arange(steps) == steps - 1
    rewards = outcome_rewards(np.full(steps, success), last)
    shaped = shaped_rewards(rewards, POTENTIALS, last, alpha=0.3)
    advantages = doubly_robust(rewards, shaped, VALUES, last, lambda_=0.5)
    print("step    p*     V     P     r'      A")
    for t in range(steps):
        print(f"{t:>4} {progress[t]:>5.2f} {VALUES[t]:>5.2f} {POTENTIALS[t]:>5.2f} {shaped[t]:>6.3f} {advantages[t]:>6.3f}")


if __name__ == "__main__":
    main()
