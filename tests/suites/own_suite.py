"""A suite outside of the package, named by `module:Class`."""

import dataclasses

import msgspec

from mira_jax.config import Count
from tests.rollouts.sites import CountingSuite


@dataclasses.dataclass(frozen=True)
class OwnOptions:
    horizon: Count = 6
    """The most steps of a task."""


class OwnSuite(CountingSuite):
    name = "own"
    Options = OwnOptions

    def __init__(self, horizon: int = 6):
        super().__init__()
        self.horizon = horizon

    def task(self, task_id):
        return msgspec.structs.replace(super().task(task_id), horizon=self.horizon)


class NoOptions(CountingSuite):
    pass
