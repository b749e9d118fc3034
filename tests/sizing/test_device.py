"""benchmarks/device.py: an accelerator is rarely at hand, so that its script must be known to begin."""

import pytest

from benchmarks import device


@pytest.mark.parametrize("chip", ["h100", "v5p"])
def test_every_step_can_be_planned(chip):
    for one in (*device.steps(tiny=False), *device.steps(tiny=True)):
        plan = device.plan_of(one, chip, tiny=one.preset == "tiny")
        kinds = {kernel.name for kernel in plan.kernels.values()}
        assert kinds == {"xla"} if one.attention == "xla" else "xla" not in kinds
        assert plan.skeleton.unrolled == one.unroll
