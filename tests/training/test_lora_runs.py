"""Runs that train adapters, by the commands that people use."""

import functools
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from mira_jax import config as configs
from mira_jax import export, score
from mira_jax.data.steps import tokenize
from mira_jax.errors import UserError
from mira_jax.models import lora
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.sampler import Sampler, Sampling, Work
from mira_jax.recipes import make_recipe
from mira_jax.train import COMMAND, TrainConfig
from mira_jax.training import loop
from mira_jax.training.load import load_adapters, load_config, load_model, model_fingerprint
from mira_jax.training.metrics import read_metrics
from mira_jax.training.state import params_of, skeleton
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic

ROOT = Path(__file__).parents[2]
SIZES = {"width": 32, "layers": 3, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64, "window": 32, "scan_layers": True}
CONFIG = {
    "recipe": {"name": "sft"},
    "data": {"row_length": 192, "rows": 2, "prompt": {"version": "compact"}},
    "model": {"sizes": SIZES},
    "optimizer": {"learning_rate": 3e-3},
    "updates": 12,
    "checkpoint": {"every": 5, "keep": 2},
    "log_every": 3,
}
LORA = ("lora.rank=4", "lora.alpha=8", "model={}", "tokenizer={}", "optimizer.learning_rate=2e-2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a base that was trained a little, and adapters of it."""
    folder = tmp_path_factory.mktemp("lora")
    synthetic.write_folder(folder / "data", count=12)
    synthetic.write_tokenizer(folder / "tokenizer.model")
    config = {**CONFIG, "data": {**CONFIG["data"], "folders": [str(folder / "data")]}}
    config["tokenizer"] = {"path": str(folder / "tokenizer.model")}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert run(folder, "base") == 0
    assert run(folder, "adapted", f"init_from={folder / 'base'}", *LORA) == 0
    return folder


def run(folder: Path, out: str, *overrides: str) -> int:
    sets = [part for override in overrides for part in ("--set", override)]
    arguments = ["--config", str(folder / "config.yaml"), "--out", str(folder / out), *sets]
    return COMMAND.run(arguments)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


def test_a_run_trains_adapters_alone_and_reads_with_them_apart(folder):
    assert losses(folder / "adapted")[-1] < losses(folder / "base")[-1]
    base, adapted = params_of(load_model(folder / "base")[0]), params_of(load_model(folder / "adapted")[0])
    trained = load_adapters(folder / "adapted")
    for path, leaf in jax.tree_util.tree_leaves_with_path(adapted):
        source = trained if "lora" in [key.key for key in path] else base
        for key in path:
            source = source[key.key]
        np.testing.assert_array_equal(leaf, source)
    assert len(jax.tree.leaves(adapted)) == len(jax.tree.leaves(base)) + len(jax.tree.leaves(trained))
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(trained)) > 1e-3


def test_layers_that_are_not_stacked_give_the_same_run(folder, capsys):
    assert run(folder, "unrolled", f"init_from={folder / 'base'}", *LORA, "model={unroll: true}") == 0
    np.testing.assert_allclose(losses(folder / "unrolled"), losses(folder / "adapted"), rtol=1e-4)
    found, expected = load_adapters(folder / "unrolled"), load_adapters(folder / "adapted")
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-4), found, expected)
    # Without adapters every parameter would have to change its layout.
    assert run(folder, "full", "model.unroll=true") == 2
    assert "model.unroll: only with lora" in capsys.readouterr().err


NARROW = ("model.sizes={}", "model.dtype=bfloat16", "model.param_dtype=bfloat16", "tokenizer={}")
SMALL = (*NARROW, "lora.rank=4", "optimizer.learning_rate=1e-5", "updates=3")
"""Small changes of a bfloat16 base: less than bfloat16 tells apart."""


@pytest.fixture(scope="module")
def small(folder):
    assert run(folder, "small", f"init_from={folder / 'base'}", *SMALL) == 0
    return folder / "small"


def with_changes(params, trained, scale):
    """W + scale A B of every matrix, by NumPy in float64."""

    def change(path, before):
        before = np.asarray(before, np.float64)
        if (pair := lora.adapters_of([key.key for key in path], trained)) is None:
            return before
        a, b = (np.asarray(part, np.float64) for part in pair)
        return before + scale * np.einsum("gxr,gry->gxy", a.reshape(len(a), -1, 4), b.reshape(len(b), 4, -1)).reshape(before.shape)

    return jax.tree_util.tree_map_with_path(change, params)


def test_small_changes_are_not_lost_in_a_bfloat16_base(folder, small):
    base, config = load_model(folder / "base", param_dtype=jnp.bfloat16)
    adapted, _ = load_model(small, param_dtype=jnp.bfloat16)
    exact = with_changes(params_of(base), load_adapters(small), 32 / 4)
    plain = skeleton(lambda rngs: Gemma3(config, rngs=rngs))
    tokens = jax.random.randint(jax.random.key(0), (2, 48), 3, 300)

    def logits(model):
        return np.asarray(model.logits(model(tokens)))

    def cast(*dtypes):
        return plain.merge(jax.tree.map(lambda leaf: functools.reduce(lambda x, dtype: x.astype(dtype), dtypes, leaf), exact))

    expected = logits(cast(np.float32))
    effect = np.abs(logits(base) - expected).max()
    assert np.abs(logits(adapted) - expected).max() < 0.05 * effect
    assert np.abs(logits(cast(jnp.bfloat16, np.float32)) - expected).max() > 0.3 * effect


def test_train_and_score_agree_on_the_policy(folder, small):
    """Log-probabilities of the same steps, in a side table and in a run that starts there."""
    sets = {"episodes": [str(folder / "data")], "policy": str(small), "out": str(folder / "scores")}
    score.main(configs.build(score.ScoreConfig, {**sets, "dtype": "bfloat16", "param_dtype": "bfloat16"}))
    table = str(folder / "scores" / "policy.npz")
    recipe = "recipe={name: actor, objective: filtered_bc}"
    assert run(folder, "again", f"init_from={small}", *SMALL, recipe, f"data.side_tables=[{table}]") == 0
    first = read_metrics(folder / "again" / "metrics.jsonl")[0]
    assert first["log_ratio_squared"] < 0.05**2
    assert len(params_of(load_model(folder / "again")[0])["groups"][0]["mlp"]["lora"]["before"]) == 6


def test_the_sampler_that_serves_agrees_with_score_and_with_the_whole_model(folder):
    adapted = folder / "adapted"
    score.main(configs.build(score.ScoreConfig, {"episodes": [str(folder / "data")], "policy": str(adapted), "out": str(folder / "wide")}))
    table, (model, _) = SideTable.read(folder / "wide" / "policy.npz"), load_model(adapted)
    sampler, base = Sampler(model, (1,), rows=1, max_length=256), Sampler(load_model(folder / "base")[0], (1,), rows=1, max_length=256)
    examples = tokenize(ShardReader(folder / "data"), PromptConfig(version="compact"), Tokenizer(adapted), progress=False)

    def log_prob(sampler: Sampler, step: int) -> float:
        prompt, response = examples.prompt(step).tolist(), examples.response(step).tolist()
        return float(sampler.score([*prompt, *response]).log_probs[-len(response) :].sum())

    for step in range(3):
        expected = table.lookup("log_prob", table.ids[step], int(table.steps[step]))
        assert log_prob(sampler, step) == pytest.approx(expected, abs=1e-3)
        assert abs(log_prob(base, step) - expected) > 0.05
    tokens = examples.prompt(0).tolist()
    (row,) = sampler.insert([Work(tokens, Sampling(4))])
    chunk = sampler.advance()
    assert chunk.count[row] == 4
    for token in chunk.tokens[row, :4]:
        ids = jnp.asarray([tokens])
        hidden = model(ids, jnp.arange(len(tokens))[None], jnp.ones_like(ids))
        assert int(jnp.argmax(model.logits(hidden[0, -1]))) == token
        tokens.append(int(token))


def test_adapters_can_be_trained_on_top_of_adapters_and_dissolved_in_float32_only(folder, capsys):
    adapted = f"init_from={folder / 'adapted'}"
    assert run(folder, "second", adapted, *LORA, "lora.rank=2", "optimizer.learning_rate=1e-3", "updates=2") == 0
    assert run(folder, "whole", adapted, "model={}", "tokenizer={}", "optimizer.learning_rate=1e-3", "updates=2") == 0
    second, whole = losses(folder / "second"), losses(folder / "whole")
    assert second[0] == pytest.approx(whole[0], abs=1e-4) and second[0] < losses(folder / "adapted")[0] - 0.3
    assert run(folder, "narrow", adapted, *NARROW) == 2
    assert "most of which would be lost in matrices of bfloat16; train new adapters with lora={}" in capsys.readouterr().err
    lora_of = params_of(load_model(folder / "second")[0])["groups"][0]["mlp"]["lora"]
    assert lora_of["up_a"].shape[-1] == 2 and lora_of["before"]["up_a"].shape[-1] == 4


def test_stopped_and_started_again_it_has_the_same_losses(folder, monkeypatch):
    class Stop(loop.StopSignal):
        def asked(self, step: int) -> bool:
            return step == 7

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopSignal", Stop)
        assert run(folder, "stopped", f"init_from={folder / 'base'}", *LORA) == 130
    assert run(folder, "stopped", f"init_from={folder / 'base'}", *LORA) == 0
    assert losses(folder / "stopped") == losses(folder / "adapted")


def export_to(folder: Path, checkpoint: Path, *overrides: str) -> int:
    sets = [part for override in overrides for part in ("--set", override)]
    arguments = ["--checkpoint", str(checkpoint), "--out", str(folder), *sets]
    return export.COMMAND.run(arguments)


def test_export_merges_in_float32_and_says_what_survives(folder, small, tmp_path, capsys):
    assert export_to(tmp_path / "export", folder / "adapted") == 0
    base = params_of(load_model(folder / "base")[0])
    exact = with_changes(base, load_adapters(folder / "adapted"), 8 / 4)
    down = load_file(tmp_path / "export" / "model.safetensors")["model.layers.1.mlp.down_proj.weight"]
    np.testing.assert_allclose(down.T, exact["groups"][0]["mlp"]["down"][1], atol=1e-6)
    printed = capsys.readouterr()
    assert "adapters: 100.0% of their change is in the export (query 100.0%, " in printed.out and "warning" not in printed.err

    assert export_to(tmp_path / "narrow", small, "dtype=bfloat16") == 0
    printed = capsys.readouterr()
    exact = with_changes(base, load_adapters(small), 32 / 4)
    squares = products = 0.0
    for before, after in zip(jax.tree.leaves(base), jax.tree.leaves(exact), strict=True):
        before, change = np.asarray(before), after - np.asarray(before, np.float64)
        left = after.astype(np.float32).astype(jnp.bfloat16).astype(np.float64) - before.astype(jnp.bfloat16).astype(np.float64)
        squares, products = squares + np.vdot(change, change), products + np.vdot(left, change)
    share = re.search(r"adapters: ([\d.]+)% of their change", printed.out)
    assert float(share[1]) == pytest.approx(100 * products / squares, abs=0.3)
    assert "set dtype=float32, or adapter=true" in printed.err
    assert export_to(tmp_path / "wide", small, "dtype=float32") == 0 and "adapters: 100.0%" in capsys.readouterr().out


def test_adapters_are_exported_by_themselves(folder, tmp_path, capsys):
    out = tmp_path / "adapter"
    assert export_to(out, folder / "adapted", "adapter=true") == 0
    assert "they belong to an export of" in capsys.readouterr().out
    document, tensors = json.loads((out / "adapter_config.json").read_text()), load_file(out / "adapter_model.safetensors")
    assert (document["r"], document["lora_alpha"], document["base_model_name_or_path"]) == (4, 8, None)
    query_a = tensors["base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight"]
    attention = load_adapters(folder / "adapted")["groups"][0]["attention"]["lora"]
    np.testing.assert_array_equal(query_a, np.asarray(attention["query_a"][2]).T)
    assert export_to(out, folder / "adapted", "adapter=true") == 0 and "complete already" in capsys.readouterr().out
    assert export_to(out, folder / "base", "adapter=true") == 2 and "has no adapters; leave out adapter=true" in capsys.readouterr().err
    (out / "adapter_model.safetensors").write_bytes(b"")
    assert export_to(out, folder / "adapted", "adapter=true") == 2 and "already exists" in capsys.readouterr().err


def test_a_critic_s_heads_are_trained_beside_the_adapters_of_its_trunk(folder):
    assert run(folder, "critic", f"init_from={folder / 'base'}", "recipe={name: critic}", *LORA, "model.param_dtype=bfloat16") == 0
    critic, _ = load_model(folder / "critic")
    trained = load_adapters(folder / "critic")
    assert set(trained) == {"trunk", "heads"} and set(trained["heads"]) == {"value", "potential"}
    assert np.abs(trained["heads"]["value"]["out"]).max() > 0
    np.testing.assert_array_equal(params_of(critic)["heads"]["value"]["out"], trained["heads"]["value"]["out"])


def test_a_base_that_is_gone_or_changed_is_named(folder, tmp_path):
    both = tmp_path / "moved"
    both.mkdir()
    for name in ("base", "adapted"):
        shutil.copytree(folder / name, both / name)
    record = json.loads((both / "adapted" / "model.json").read_text())
    record["lora"]["base"] = str(tmp_path / "nowhere")
    (both / "adapted" / "model.json").write_text(json.dumps(record))
    (both / "adapted" / "run_files.json").unlink()
    assert load_config(both / "adapted")[0].width == 32
    assert model_fingerprint(both / "adapted") == model_fingerprint(folder / "adapted"), "the same weights wherever the base lies"
    load_model(both / "adapted")
    files = (both / "base" / "checkpoints" / "12" / "params").rglob("*")
    part = next(path for path in files if path.is_file() and path.stat().st_size > 5000)
    part.write_bytes(part.read_bytes()[:-8] + bytes(8))
    for read in (load_model, load_config):
        with pytest.raises(UserError, match="not those that they were trained with"):
            read(both / "adapted")
    shutil.rmtree(both / "base")
    with pytest.raises(UserError, match="which is gone; put that model back"):
        load_model(both / "adapted")


def test_what_makes_no_sense_is_refused(folder, capsys):
    assert run(folder, "alone", "lora={}") == 2
    assert "adapters need a model that they adapt; name it with init_from" in capsys.readouterr().err
    assert run(folder, "master", "optimizer.master=true") == 2
    assert "the parameters are float32 already" in capsys.readouterr().err
    assert run(folder, "rank", f"init_from={folder / 'base'}", "lora.rank=0") == 2
    assert "lora.rank: 0; it must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["12b", "lora"])
@pytest.mark.parametrize("recipe", ["sft", "critic", "actor"])
def test_the_example_configs_are_whole(folder, recipe):
    config = configs.load(TrainConfig, ROOT / "configs" / folder / f"{recipe}.yaml")
    assert make_recipe(config.recipe) and config.recipe["name"] == recipe
    assert config.model.param_dtype == "bfloat16" and config.model.remat == "block"
    assert (config.lora is not None) == (folder == "lora")
