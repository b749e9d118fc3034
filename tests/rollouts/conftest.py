import pytest

import rollouts.engine.needs
import rollouts.engine.plan
import rollouts.engine.pool
from rollouts import evaluate


@pytest.fixture
def use(monkeypatch):
    """Makes commands find the suite that it is given."""

    def set_suite(suite):
        for module in (rollouts.engine.needs, rollouts.engine.plan, rollouts.engine.pool, evaluate):
            monkeypatch.setattr(module, "make_suite", lambda name, **_: suite)
        return suite

    return set_suite
