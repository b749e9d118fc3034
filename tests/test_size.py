import importlib.util
import json

import pytest
from jax.experimental import topologies

from mira_jax.models.config import PRESETS
from mira_jax.size import COMMAND

SMALL = ["--set", "model.sizes={vocabulary_size: 96, width: 32, layers: 2, query_heads: 4, kv_heads: 2, head_dim: 8, mlp_width: 64}"]
ROWS = ["--set", "data.rows=8", "--set", "data.row_length=64", "--set", "prompt_tokens=20", "--set", "response_tokens=10"]


ESTIMATE = ["--set", "compile=false"]


def size(*arguments):
    return COMMAND.run([*SMALL, *ROWS, *ESTIMATE, *arguments])


@pytest.mark.parametrize("recipe", ["sft", "actor", "critic"])
def test_a_gpu_is_estimated_without_a_compiler(recipe, tmp_path, capsys):
    path = tmp_path / "size.json"
    assert size("--topology", "h200:8", "--json", str(path), "--set", f"recipe.name={recipe}") == 0
    printed = capsys.readouterr().out
    assert f"{recipe} step of Gemma3" in printed and "8 x NVIDIA H200" in printed and "causal, window counted" in printed
    (tree,) = json.loads(path.read_text())["sizings"]
    assert tree["fits"] and tree["compiled"] is None and tree["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1, "sequence": 1}
    assert tree["roofline"]["mfu"] <= tree["flops_needed"] / tree["flops_done"] <= 1


def test_what_does_not_fit_is_said_with_settings_that_do(capsys, tmp_path):
    path = tmp_path / "size.json"
    # 96 layers keep too much of 65,536 tokens for 16 GB, their inputs alone do not.
    deep = ["--set", "model.sizes.layers=96", "--set", f"model.sizes.layer_types=[{', '.join(['sliding_attention'] * 96)}]"]
    long = ["--set", "data.row_length=65536", "--set", "prompt_tokens=30000", "--set", "compile=false"]
    assert size(*deep, *long, "--topology", "v5e:2x4", "--json", str(path)) == 0
    printed = capsys.readouterr().out
    assert "NO" in printed and "settings that fit" in printed
    assert "--set mesh.fsdp=" in printed and "--set model.remat=" in printed and "--set optimizer.accumulate=" in printed
    tree = json.loads(path.read_text())
    assert not tree["sizings"][0]["fits"]
    assert all(sum(candidate["estimate"]["memory"].values()) <= 16 * 2**30 for candidate in tree["candidates"])
    assert any(candidate["mesh"]["fsdp"] == 8 and candidate["remat"] == "block" for candidate in tree["candidates"])


def test_search_ranks_what_is_kept_also_if_the_step_fits(capsys, tmp_path):
    path = tmp_path / "size.json"
    assert size("--topology", "h100:1", "--set", "search=true", "--json", str(path)) == 0
    tree = json.loads(path.read_text())
    assert tree["sizings"][0]["fits"] and "--set model.remat=" in capsys.readouterr().out
    times = [candidate["roofline"]["compute"] for candidate in tree["candidates"]]
    found = {str(candidate["remat"]): time for candidate, time in zip(tree["candidates"], times, strict=True)}
    assert found["none"] < found["products"] < found["['query', 'key', 'value', 'heads']"] < found["block"]


def test_a_model_that_no_mesh_of_the_chips_holds_is_a_failure(capsys):
    arguments = ["--set", "model.sizes.vocabulary_size=8000000", "--set", "model.sizes.width=256", "--set", "model.sizes.layers=1"]
    assert size(*arguments, "--topology", "v5e:1x1", "--set", "compile=false") == 1
    assert "no mesh of these chips holds it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--topology", "v7x:4"], "topology: 'v7x:4' is not a known kind of chip"),
        (["--topology", "h200:8", "--set", "mesh.tensor=3"], "there are 8"),
        (["--topology", "h200:2x8"], "8 rows at once can't be shared evenly by 16 chips"),
        (["--topology", "h200:8", "--what", "sing"], "what: 'sing' is none of train, score, serve"),
        (["--topology", "h200:8", "--what", "serve", "--set", "recipe.name=critic"], "a critic is not served; choose --what score"),
        (["--topology", "h200:8", "--what", "score", "--set", "score.row_length=20"], "longer than a row of 20"),
        (["--topology", "h200:8", "--preset", "13b"], "preset: '13b' is none of 270m"),
        (["--topology", "h200:8", "--set", "prompt_tokens=0"], "prompt_tokens: 0; it must be at least 1"),
        (["--topology", "h200:8", "--set", "prompt_tokens=90"], "longer than a row of 64"),
        (["--topology", "h200:8", "--set", "efficiency=2"], "efficiency: 2.0"),
        (["--topology", "h200:8", "--set", "init_from=/nowhere"], "/nowhere is not here"),
        (["--topology", "h200:8", "--set", "model.sizes={}"], "its sizes are unknown"),
        (["--topology", "h200:8", "--json", "/nowhere/size.json"], "json: there is no folder /nowhere"),
        (["--topology", "h200:8", "--set", "prompt_token=9"], "did you mean prompt_tokens"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(arguments, said, capsys):
    assert size(*arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("recipe", "kind"), [("sft", "policy"), ("critic", "critic"), ("orm", "orm")])
def test_a_batch_of_scores_is_sized(recipe, kind, tmp_path, capsys):
    path = tmp_path / "size.json"
    arguments = ["--what", "score", "--set", f"recipe.name={recipe}", "--set", "score.rows=3", "--json", str(path)]
    assert size("--topology", "l40s:1", *arguments) == 0
    assert f"score ({recipe}) with Gemma3" in capsys.readouterr().out
    (tree,) = json.loads(path.read_text())["sizings"]
    (program,) = tree["programs"]
    # Rows of 64 hold two steps of 20 + 10 - 1 tokens, or three prompts.
    assert program["tokens"] == 3 * (60 if kind == "critic" else 58)
    assert tree["fits"] and program["flops_needed"] <= program["flops_done"]


def test_the_step_of_an_actor_that_keeps_to_the_support_is_sized(capsys):
    assert size("--topology", "l40s:1", "--set", "recipe.name=actor", "--set", "recipe.support_weight=1.0") == 0
    assert "actor step of Gemma3" in capsys.readouterr().out


def test_a_server_is_sized(tmp_path, capsys):
    path = tmp_path / "size.json"
    arguments = ["--what", "serve", "--set", "serve.rows=3", "--set", "serve.max_length=2000", "--json", str(path)]
    assert size("--topology", "a10g:1", *arguments) == 0
    assert "one more token in 3 rows at 2,048 tokens" in capsys.readouterr().out
    (tree,) = json.loads(path.read_text())["sizings"]
    assert [program["name"] for program in tree["programs"]] == ["prefill", "decode"]


def test_a_server_that_does_not_fit_is_a_failure(capsys):
    assert size("--what", "serve", "--set", "serve.prefix_cache_mb=30000", "--topology", "a10g:1") == 1
    assert "NO" in capsys.readouterr().out


def test_without_the_gpu_compiler_it_says_what_to_install(monkeypatch, capsys):
    def missing(*_, **__):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    assert size("--topology", "h100:8", "--set", "compile=true") == 2
    printed = capsys.readouterr().err
    assert "pip install" in printed and "[cuda]" in printed and "compile=false" in printed


def test_without_the_tpu_compiler_it_says_what_to_install(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "libtpu" else find(name, *rest))
    assert size("--topology", "v5p:2x2x2", "--set", "compile=true") == 2
    printed = capsys.readouterr().err
    assert "pip install" in printed and "[tpu]" in printed and "compile=false" in printed


def test_a_preset_takes_the_place_of_a_model_that_is_not_here(tmp_path):
    path = tmp_path / "size.json"
    arguments = ["--set", "init_from=/nowhere", "--preset", "270m", "--topology", "h200:1", "--json", str(path)]
    assert size(*arguments) == 0
    assert json.loads(path.read_text())["sizings"][0]["parameters"] == PRESETS["270m"].parameters
