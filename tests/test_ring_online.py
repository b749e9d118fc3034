"""Online training in miniature: rollouts, a trainer and a server, each a process, over three rounds, and resumed for a fourth."""

import json
import os
import subprocess
import sys

import pytest
from flax import nnx

from mira_jax.models import huggingface
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.rounds import read_version
from mira_jax.training.load import model_fingerprint
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic


@pytest.fixture
def first_policy(tmp_path):
    tokenizer = Tokenizer(synthetic.write_tokenizer(tmp_path / "tokenizer.model"))
    sizes = {"width": 32, "layers": 1, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64, "window": 512}
    folder = tmp_path / "first"
    huggingface.save(Gemma3(Gemma3Config(tokenizer.vocabulary_size, **sizes), rngs=nnx.Rngs(0)), folder, tokenizer.path)
    return folder


def write_config(tmp_path, first_policy):
    prompt = {"version": "compact", "max_tokens": 200}
    collect = {
        "out": "{out}/rounds/{round}/rollouts", "suite.name": "seeking", "templates": ["chain_2"], "episodes": 6, "attempts": 6,
        "seed": "{round}", "limits.horizon": 1, "browser": {"driver": "asgi", "contexts": 8, "draw": False},
        "observation": {"handles": "name", "compact": True},
        "policy": {"kind": "endpoint", "name": "tiny", "temperature": 1.0, "max_tokens": 6, "prompt": prompt, "tokenizer": "{policy}"},
    }  # fmt: skip
    tree = {
        "rollouts": [
            {"name": "collect", "module": "rollouts.collect", "set": collect,
             "serve": {"model": "{policy}", "url": "policy.endpoint.base_url", "name": "policy.checkpoint"}},
            {"name": "label", "module": "tests.online_labels",
             "set": {"folder": "{out}/rounds/{round}/rollouts", "out": "{out}/rounds/{round}/labelled"}},
        ],
        "trainer": {"name": "train", "module": "mira_jax.train_online", "set": {
            "init_from": str(first_policy), "data": {"prompt": prompt, "row_length": 224, "rows": 4},
            "recipe": {"name": "actor", "objective": "grpo", "length": 6.0},
            "optimizer": {"learning_rate": 0.01, "schedule": "constant", "warmup": 0.0},
        }},
        "server": {"config": str(tmp_path / "serve.yaml")},
    }  # fmt: skip
    (tmp_path / "serve.yaml").write_text(json.dumps({"max_length": 224, "rows": 8}))
    (tmp_path / "online.yaml").write_text(json.dumps(tree))
    return tmp_path / "online.yaml"


def history(run):
    return [json.loads(line) for line in (run / "policy" / "rounds.jsonl").read_text().splitlines()]


@pytest.mark.ring
@pytest.mark.timeout(600)
def test_three_rounds_and_a_fourth(tmp_path, first_policy):
    run, path = tmp_path / "run", write_config(tmp_path, first_policy)

    def start(*sets):
        # A process of its own: this one has the threads of JAX, and so must not start others.
        command = [sys.executable, "-m", "mira_jax.online", "--config", str(path), "--out", str(run)]
        command += [part for one in sets for part in ("--set", one)]
        return subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=False).returncode

    assert start("rounds=3") == 0
    lines = history(run)
    assert [(line["round"], line["version"]) for line in lines] == [(1, 0), (2, 1), (3, 2)]
    # The server's numbers are those of the trainer, so nothing had to be corrected.
    metrics = [json.loads(line) for line in (run / "policy" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["sampler_difference"] for line in metrics) < 1e-4
    assert all(line["importance_truncated"] == 0 for line in metrics)
    # At the first update of a round the policy is the one that drew.
    assert metrics[0]["ratio"] == pytest.approx(1, abs=1e-5) and metrics[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert lines[-1]["reward"] > lines[0]["reward"]

    fingerprints = [{one.policy.fingerprint for one in ShardReader([str(run / f"rounds/{r}/labelled")])} for r in (1, 2, 3)]
    assert all(len(one) == 1 for one in fingerprints) and len(set.union(*fingerprints)) == 3
    assert fingerprints[0] == {json.loads((run / "rounds/1/started.json").read_text())["fingerprint"]}
    assert read_version(run / "policy" / "round.json").fingerprint == model_fingerprint(run / "policy")

    # A fourth round, whose interrupted attempt had drawn with other weights.
    torn = run / "rounds" / "4"
    torn.mkdir()
    (torn / "started.json").write_text(json.dumps({"round": 1, "step": 1, "fingerprint": "other"}))
    assert start("rounds=4") == 0
    assert history(run)[:3] == lines and len(history(run)) == 4
