"""examples/served_policy.py against a real server."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "served_policy.py"


def test_a_served_policy_is_asked(server, folder, tokenizer, by_hand):
    """The first token's probability is that of the same model without cache, batch or compiled loop."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, SCRIPT, folder, f"{server.url}/v1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    head, first = done.stdout.splitlines()[:2]
    assert head.startswith("tiny: ")
    probability, token = first.split(maxsplit=1)
    prompt = [tokenizer.bos_id, *tokenizer.encode('Add "blue lamp" to the cart.'), *tokenizer.encode("\n")]
    prompt += [tokenizer.start_of_turn_id, *tokenizer.encode('<h1>lamps</h1>\n<a id="blue lamp"> 12.50\n<a id="red lamp"> 9.00')]
    expected = by_hand.log_probs([*prompt, tokenizer.end_of_turn_id])[-1]
    assert float(probability) == pytest.approx(math.exp(expected.max()), abs=6e-5)
    assert token == repr(tokenizer.piece(int(expected.argmax())))
