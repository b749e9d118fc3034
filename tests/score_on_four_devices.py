"""Runs `mira score` with each of the given lists of overrides, in one process with simulated devices, and loads the policy of the
first on its mesh. Prints JSON.

    python -m tests.score_on_four_devices '[["episodes=[...]", ...], ...]'
"""

import contextlib
import io
import json
import sys

import jax

from mira_jax import score
from mira_jax.config import load
from mira_jax.training.layout import make_layout
from mira_jax.training.load import load_model
from mira_jax.training.state import params_of


def run(overrides: list[str]) -> dict:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = score.COMMAND.run([part for override in overrides for part in ("--set", override)])
    return {"code": code, "error": errors.getvalue()}


def loaded(overrides: list[str]) -> dict:
    """The dtypes of matrices and of adapters, and the most that one device holds of the parameters."""
    config = load(score.ScoreConfig, None, overrides)
    layout = make_layout(config.mesh, config.rows, config.row_length)
    params = params_of(load_model(config.policy, dtype=config.dtype, param_dtype=config.param_dtype, layout=layout)[0])
    held, dtypes = dict.fromkeys(jax.devices(), 0), {"matrices": set(), "adapters": set()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtypes["adapters" if "lora" in [key.key for key in path] else "matrices"].add(str(leaf.dtype))
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return {**{name: sorted(found) for name, found in dtypes.items()}, "share": max(held.values()) / whole}


if __name__ == "__main__":
    cases = json.loads(sys.argv[1])
    print(json.dumps({"loaded": loaded(cases[0]), "runs": [run(case) for case in cases]}))
