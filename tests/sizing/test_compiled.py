"""What is read of the TPU compiler's refusals. The first message is that of libtpu 0.0.42."""

import pytest

from mira_jax.sizing.compiled import read_exhausted


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (48.28G) exceeds available HBM "
            "(15.75G).",
            48.28,
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.", 20.5),
    ],
)
def test_a_program_too_large_says_how_much_it_wants(message, gib):
    found = read_exhausted(message, seconds=1.0)
    assert not found.fits
    assert found.peak == gib * 2**30
