"""Labellers, async functions from trajectories to trajectories. They can be chained, and label several trajectories at once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories.records import Trajectory
from rollouts.errors import EndpointError
from rollouts.llm.usage import Usage

Labeller = Callable[[Trajectory], Awaitable[Trajectory]]
KEPT = "the episodes are kept, and the same command labels them"


class AskedModel(Protocol):
    """A model that a labeller asks. Its endpoint is open while it is entered."""

    key: str
    """Path of its config."""

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *_: object) -> None: ...

    @property
    def usage(self) -> Usage: ...


class OpenLabeller:
    """A labeller and the model that it asks. Close it after use. Must not be used from a running event loop."""

    def __init__(self, labeller: Labeller, key: str, model: AskedModel | None = None):
        """`key`: path of the labeller's config, for messages."""
        self._labeller, self._key, self._model = labeller, key, model
        self._runner = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        self._opened = False

    @property
    def usage(self) -> Mapping[str, Usage]:
        """What a model used, by the path of its config. Empty without a model."""
        return {self._model.key: self._model.usage} if self._model else {}

    def label(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Labels several at once.

        Raises:
            UserError: the endpoint fails, or the spending limit is reached.
        """
        try:
            return self._runner.run(self._label(trajectories))
        except ConfigError:
            raise
        except (EndpointError, UserError) as error:
            raise ConfigError(self._model.key if self._model else self._key, f"{error}; {KEPT}") from None

    async def _label(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        if self._model and not self._opened:
            await self._stack.enter_async_context(self._model)
            self._opened = True
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_caught(self._labeller, trajectory)) for trajectory in trajectories]
        results = [task.result() for task in tasks]
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result for result in results if isinstance(result, Trajectory)]

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()


async def _caught(labeller: Labeller, trajectory: Trajectory) -> Trajectory | EndpointError | UserError:
    """Errors are returned, so that the other trajectories are labelled and their answers kept."""
    try:
        return await labeller(trajectory)
    except (EndpointError, UserError) as error:
        return error


def chain(*labellers: Labeller) -> Labeller:
    """Applies labellers one after the other."""

    async def labeller(trajectory: Trajectory) -> Trajectory:
        for one in labellers:
            trajectory = await one(trajectory)
        return trajectory

    return labeller
