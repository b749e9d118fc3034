"""Descriptions of GPUs. That XLA's compiler reads them is tested by compiling, in test_compiled.py."""

import re

import pytest

from mira_jax.sizing.chips import CHIPS
from mira_jax.sizing.targets import TARGETS


@pytest.mark.parametrize("kind", TARGETS)
def test_a_description_agrees_with_the_data_of_the_chip(kind):
    target, chip = TARGETS[kind], CHIPS[kind]
    assert target.memory_rate == pytest.approx(chip.hbm_rate, rel=0.01)
    # NVIDIA rounds down: the driver has more than the nominal size, in bytes of 10^9, but not 10 % more.
    assert 1 < target.memory / chip.hbm < 1.1


def test_a_description_is_in_the_text_format():
    text = TARGETS["a100"].text()
    fields = dict(re.findall(r"^  (\w+): (\S+)$", text, re.MULTILINE))
    assert fields["core_count"] == "108" and fields["shared_memory_per_core"] == "167936"
    # 163 KiB of the 164 KiB of a multiprocessor.
    assert fields["shared_memory_per_block_optin"] == "166912"
    assert "cuda_compute_capability { major: 8 minor: 0 }" in text
    assert "cuda_compute_capability { major: 10 minor: 0 feature_extension: ACCELERATED_FEATURES }" in TARGETS["b200"].text()
    assert text.count("{") == text.count("}")
