"""Bad habits, which turn a suite's expert into an imperfect demonstrator."""

import dataclasses
from collections.abc import Collection, Mapping
from random import Random

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task


@dataclasses.dataclass(frozen=True)
class Habits:
    """The bad habits of one episode, each drawn independently, most of them once."""

    chances: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Habit to its probability."""
    key: str = ""
    """Determines the draws."""
    each_time: Collection[str] = ()
    """Habits that are drawn anew at each move."""

    @property
    def drawn(self) -> frozenset[str]:
        """The habits that the whole episode has."""
        return frozenset(name for name in self.chances if name not in self.each_time and self._draw(name))

    def mistaken(self, habit: str, move: int) -> bool:
        """Whether a habit that is drawn at each move occurs at that one."""
        return self._draw(habit, f" {move}")

    def _draw(self, name: str, place: str = "") -> bool:
        return Random(f"{name} {self.key}{place}").random() < self.chances.get(name, 0)


def draw_habits(
    habits: Mapping[str, float], known: Collection[str], task: Task, seed: int, attempt: int, each_time: Collection[str] = ()
) -> Habits:
    """The habits of one episode, from (task, seed, attempt).

    Args:
        habits: habit to its probability.
        known: the habits that the suite's expert can have.
        each_time: see `Habits`.

    Raises:
        UserError: an unknown habit, or a probability outside [0, 1].
    """
    for name, probability in habits.items():
        if name not in known:
            raise UserError(f"policy.habits: {name!r} is none of {', '.join(known)}")
        if not 0 <= probability <= 1:
            raise UserError(f"policy.habits: {name} is {probability}, which is no probability")
    return Habits(habits, f"{task.id} {task.seed} {seed} {attempt}", each_time)
