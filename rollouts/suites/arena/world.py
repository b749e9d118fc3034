"""The sites as one episode has them, apart from every other episode's."""

from collections.abc import Iterable, Mapping
from typing import Any

from rollouts.suites.arena.apps import APPS
from rollouts.suites.arena.state import State


class World:
    """The state of each application, made when it is first asked for. All are drawn from one seed."""

    def __init__(self, seed: int, setup: Mapping[str, Mapping[str, Any]] | None = None):
        """`setup`: application to what its `make_state` is given."""
        self.seed, self._setup = seed, setup or {}
        self._states: dict[str, State] = {}

    def __getitem__(self, app: str) -> Any:
        if app not in self._states:
            self._states[app] = APPS[app].make_state(self.seed, self._setup.get(app, {}))
        return self._states[app]

    def snapshot(self, apps: Iterable[str]) -> dict[str, Any]:
        """Application to its snapshot."""
        return {app: self[app].snapshot() for app in apps}

    def copy(self) -> "World":
        """The same world, to be looked at without a trace."""
        copy = World(self.seed, self._setup)
        copy._states = {app: state.copy() for app, state in self._states.items()}
        return copy

    def close(self) -> None:
        for state in self._states.values():
            state.close()
        self._states.clear()


Visits = dict[str, World]
"""Cookie to world: who may see what."""
