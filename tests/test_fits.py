"""What the configs of 12B say about the memory that they need, checked by compiling for chips that are not here."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STATEMENT = re.compile(r"^# Memory: ([\d.]+) GB a chip, by\n#   mira size (.+)$", re.MULTILINE)
CONFIGS = sorted(
    path for folder in ("12b", "lora") for path in (ROOT / "configs" / folder).glob("*.yaml") if not path.stem.startswith("phases")
)
NAMES = [str(path.relative_to(ROOT)) for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_a_config_of_a_preset_model_says_how_much_memory_it_needs(path):
    (found,) = STATEMENT.findall(path.read_text())
    arguments = shlex.split(found[1])
    assert "--preset" in arguments and "--topology" in arguments
    # A server's keys are set one by one, because it has another kind of config.
    assert str(path.relative_to(ROOT)) in arguments or "serve" in arguments


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_it_fits_with_the_memory_that_it_says(path, tmp_path):
    (found,) = STATEMENT.findall(path.read_text())
    out = tmp_path / "size.json"
    # Without XLA_FLAGS: those of the tests change what is compiled.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "mira_jax.size", *shlex.split(found[1]), "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if "compiler is not installed" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    sizing = json.loads(out.read_text())["sizings"][0]
    assert sizing["fits"]
    # Versions of XLA plan a little differently.
    assert sizing["peak"] / 1e9 == pytest.approx(float(found[0]), rel=0.05)
