"""The sites of one episode, isolated from all other episodes."""

from collections.abc import Iterable, Mapping
from typing import Any

from mira_arena.sites.registry import application
from mira_arena.sites.state import State


class World:
    """The state of each application, created on first use. All are generated from one seed."""

    def __init__(self, seed: int, setup: Mapping[str, Mapping[str, Any]] | None = None):
        """`setup`: name of an application to the setup passed to its `make_state`."""
        self.seed, self._setup = seed, setup or {}
        self._states: dict[str, State] = {}
        self._snapshots: dict[str, tuple[int, dict[str, Any]]] = {}
        """The last snapshot of each application, and the version of its state then."""

    def __getitem__(self, name: str) -> Any:
        if name not in self._states:
            self._states[name] = application(name).make_state(self.seed, self._setup.get(name, {}))
        return self._states[name]

    def snapshot(self, names: Iterable[str]) -> dict[str, Any]:
        """Maps each application to its snapshot."""
        return {name: self._snapshot(name) for name in names}

    def _snapshot(self, name: str) -> dict[str, Any]:
        state: State = self[name]
        if self._snapshots.get(name, (-1,))[0] != state.version:
            self._snapshots[name] = state.version, state.snapshot()
        return self._snapshots[name][1]

    def copy(self) -> "World":
        """An independent copy. Reading its pages does not change the original."""
        copy = World(self.seed, self._setup)
        copy._states = {name: state.copy() for name, state in self._states.items()}
        return copy

    def close(self) -> None:
        for state in self._states.values():
            state.close()
        self._states.clear()
        self._snapshots.clear()


Visits = dict[str, World]
"""Cookie to the visitor's world."""
