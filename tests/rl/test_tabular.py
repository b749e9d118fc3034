"""Shaping and optimal policies in small Markov decision processes, solved by value iteration.

Potential-based shaping in the strict sense (Ng, Harada and Russell 1999) never changes which policy is optimal: with the discount of
the return and a potential of 0 after the end, the shaping terms of an episode sum to -alpha P(s_0), whatever is done. The published
form differs in two ways, and each can change the optimal policy:

- `hold`: the last step is not shaped, so the potential that was collected is never taken back. An episode that ends in a state of
  high potential has gained alpha [P(s_last) - P(s_0)], even if it fails.
- discount 1 under a discounted return: to leave a state of high potential costs gamma times what it earned to enter it. Going round
  in a circle pays at every turn.
"""

import dataclasses

import numpy as np
import pytest

from mira_jax.rl.shaping import shaped_rewards

END = -1


@dataclasses.dataclass(frozen=True)
class MDP:
    """Episodic: `moves[s][a]` lists the (probability, next state or END, reward) of action a in state s."""

    moves: list[list[list[tuple[float, int, float]]]]
    potential: np.ndarray
    """P(s) of each state. After the end it is what `at_end` says."""

    def shaped(self, alpha, discount, at_end):
        """The same process with the rewards of `shaped_rewards`."""

        def reward(state, after, reward):
            if after == END:
                return float(shaped_rewards([reward], self.potential[[state]], [True], alpha, discount, at_end)[0])
            # The first of two steps. Its own reward depends on nothing later.
            return float(shaped_rewards([reward, 0], self.potential[[state, after]], [False, True], alpha, discount, at_end)[0])

        moves = [[[(p, after, reward(s, after, r)) for p, after, r in way] for way in ways] for s, ways in enumerate(self.moves)]
        return MDP(moves, self.potential)

    def action_values(self, gamma, sweeps=2000):
        """Q(s, a) = sum of p [ r + gamma max_b Q(s', b) ], by value iteration."""
        values = np.zeros(len(self.moves))
        for _ in range(sweeps):
            q = [[sum(p * (r + gamma * (values[s] if s != END else 0)) for p, s, r in way) for way in ways] for ways in self.moves]
            new = np.array([max(row) for row in q])
            if np.abs(new - values).max() < 1e-12:
                break
            values = new
        return q

    def optimal(self, gamma):
        """The set of optimal actions in each state."""
        return [{a for a, value in enumerate(row) if value > max(row) - 1e-6} for row in self.action_values(gamma)]


def random_mdp(seed, states=6, actions=3):
    """Each action leads to two random states or the end, and ending is a success with a random probability."""
    rng = np.random.default_rng(seed)
    moves = []
    for _ in range(states):
        ways = []
        for _ in range(actions):
            first, second = rng.integers(0, states, 2).tolist()
            stay, won = 0.5 * rng.random(), rng.random()
            ways.append([(stay, first, 0.0), (0.7 - stay, second, 0.0), (0.3 * won, END, 1.0), (0.3 * (1 - won), END, 0.0)])
        moves.append(ways)
    return MDP(moves, rng.random(states))


@pytest.mark.parametrize("gamma", [0.8, 0.95, 1.0])
def test_strict_shaping_leaves_the_optimal_policy_and_lowers_all_values_by_alpha_p(gamma):
    for seed in range(20):
        plain = random_mdp(seed)
        strict = plain.shaped(alpha=2.0, discount=gamma, at_end="zero")
        assert strict.optimal(gamma) == plain.optimal(gamma)
        lowered = np.array(plain.action_values(gamma)) - 2.0 * plain.potential[:, None]
        np.testing.assert_allclose(strict.action_values(gamma), lowered, atol=1e-6)


DEAD_END = MDP(
    moves=[
        [[(1.0, 1, 0.0)], [(1.0, 2, 0.0)]],  # state 0, the start: action 0 to the shop, action 1 to the full cart
        [[(0.2, END, 1.0), (0.8, END, 0.0)]],  # state 1, the shop: a hard way that succeeds in 20 % of episodes
        [[(1.0, END, 0.0)]],  # state 2, a full cart of the wrong things: progress that leads nowhere
    ],
    potential=np.array([0.0, 0.0, 0.9]),
)
"""The potential critic is wrong about state 2, or right that most subgoals are done there: it can't be completed."""


def test_a_potential_that_is_held_at_the_end_makes_a_dead_end_worth_going_to():
    """The true values of the two actions are 0.2 and 0. The published form adds alpha 0.9 = 0.27 to the second, and nothing takes it
    back when the episode ends there. The strict form takes it back at the last step: 0.27 - 0.27."""
    assert DEAD_END.action_values(1.0)[0] == pytest.approx([0.2, 0.0])
    assert DEAD_END.optimal(1.0)[0] == {0}

    published = DEAD_END.shaped(alpha=0.3, discount=1.0, at_end="hold")
    assert published.action_values(1.0)[0] == pytest.approx([0.2, 0.27])
    assert published.optimal(1.0)[0] == {1}

    strict = DEAD_END.shaped(alpha=0.3, discount=1.0, at_end="zero")
    assert strict.action_values(1.0)[0] == pytest.approx([0.2, 0.0])
    assert strict.optimal(1.0)[0] == {0}


CIRCLE = MDP(
    moves=[
        [[(0.1, END, 1.0), (0.9, END, 0.0)], [(1.0, 1, 0.0)]],  # state 0: action 0 finishes, a success in 10 %; action 1 opens a page
        [[(1.0, 0, 0.0)]],  # state 1: the way back
    ],
    potential=np.array([0.0, 1.0]),
)


def test_an_undiscounted_potential_pays_for_going_round_in_a_circle():
    """With gamma = 0.9, one turn earns alpha (1) and then pays back gamma alpha (1). For ever, that is

        alpha (1 - gamma) (1 + gamma^2 + gamma^4 + ...) = alpha / (1 + gamma) = 0.3 / 1.9 = 0.158,

    more than the 0.1 of finishing. With the discount in the bracket a turn earns alpha gamma and pays back gamma alpha: nothing."""
    gamma = 0.9
    assert CIRCLE.optimal(gamma)[0] == {0}

    published = CIRCLE.shaped(alpha=0.3, discount=1.0, at_end="hold")
    assert published.action_values(gamma)[0] == pytest.approx([0.1, 0.3 / 1.9])
    assert published.optimal(gamma)[0] == {1}

    strict = CIRCLE.shaped(alpha=0.3, discount=gamma, at_end="zero")
    assert strict.action_values(gamma)[0] == pytest.approx([0.1, gamma**2 * 0.1])
    assert strict.optimal(gamma)[0] == {0}


def test_each_change_alone_can_change_the_policy():
    """`zero` does not mend an undiscounted circle, and the discount does not mend a held dead end."""
    assert CIRCLE.shaped(alpha=0.3, discount=1.0, at_end="zero").optimal(0.9)[0] == {1}
    assert DEAD_END.shaped(alpha=0.3, discount=0.9, at_end="hold").optimal(0.9)[0] == {1}
