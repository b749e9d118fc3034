import pytest

from rollouts.suites.arena.suite import ArenaSuite


@pytest.fixture
async def arena():
    suite = ArenaSuite()
    await suite.start()
    yield suite
    await suite.stop()
