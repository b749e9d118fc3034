"""Runs that train adapters, by the commands that people use."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from mira_jax import commands, export
from mira_jax import config as configs
from mira_jax.errors import UserError
from mira_jax.models import lora
from mira_jax.recipes import make_recipe
from mira_jax.serve import ServeConfig, make_engine
from mira_jax.train import TrainConfig, main
from mira_jax.training import loop
from mira_jax.training.load import load_adapters, load_config, load_model
from mira_jax.training.metrics import read_metrics
from mira_jax.training.state import params_of
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
    return commands.run(main, TrainConfig, "", flags=("out",), argv=arguments)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


def test_a_run_trains_adapters_alone_and_reads_as_the_merged_model(folder):
    assert losses(folder / "adapted")[-1] < losses(folder / "base")[-1]
    base, adapted = params_of(load_model(folder / "base")[0]), params_of(load_model(folder / "adapted")[0])
    trained = load_adapters(folder / "adapted")
    assert jax.tree.structure(base) == jax.tree.structure(adapted)
    for path, before in jax.tree_util.tree_leaves_with_path(base):
        names = [key.key for key in path]
        after = adapted
        for name in names:
            after = after[name]
        pair = lora.adapters_of(names, trained)
        if pair is None:
            np.testing.assert_array_equal(after, before)
        else:
            a, b = (np.asarray(part, np.float64) for part in pair)
            product = np.einsum("gxr,gry->gxy", a.reshape(a.shape[0], -1, 4), b.reshape(b.shape[0], 4, -1)).reshape(before.shape)
            np.testing.assert_allclose(after, before + 8 / 4 * product, atol=1e-5)
            assert np.abs(product).max() > 1e-3


def test_stopped_and_started_again_it_has_the_same_losses(folder, monkeypatch):
    class Stop(loop.StopSignal):
        def asked(self, step: int) -> bool:
            return step == 7

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopSignal", Stop)
        assert run(folder, "stopped", f"init_from={folder / 'base'}", *LORA) == 130
    assert run(folder, "stopped", f"init_from={folder / 'base'}", *LORA) == 0
    assert losses(folder / "stopped") == losses(folder / "adapted")


def test_serve_and_export_use_the_merged_model(folder):
    arguments = ["--checkpoint", str(folder / "adapted"), "--out", str(folder / "export")]
    assert commands.run(export.main, export.ExportConfig, "", flags=("checkpoint", "out"), argv=arguments) == 0
    model = params_of(load_model(folder / "adapted")[0])
    down = load_file(folder / "export" / "model.safetensors")["model.layers.1.mlp.down_proj.weight"]
    np.testing.assert_allclose(down.T, model["groups"][0]["mlp"]["down"][1], atol=1e-6)
    engine = make_engine(ServeConfig(model=str(folder / "adapted"), rows=1))
    engine.close()


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
    assert load_config(both / "adapted")[0].width == 32
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
