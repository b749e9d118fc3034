"""Weights that are NaN or infinite are named by whatever reads them."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from mira_jax import export, import_model
from mira_jax.errors import UserError
from mira_jax.models import google, huggingface, weights
from mira_jax.training import run_weights
from mira_jax.training.checkpoint import CHECKPOINTS
from mira_jax.training.load import load_model, write_model_json
from tests.models.test_google import release_of

FIXTURES = Path(__file__).parent / "fixtures" / "gemma3"
NAME = "model.layers.3.mlp.up_proj.weight"


def run(module, *settings):
    return module.COMMAND.run([part for setting in settings for part in ("--set", setting)])


def hub_folder(tmp_path, fixture, name, values):
    """A copy of a fixture whose tensor `name` begins with `values`."""
    folder = tmp_path / "hub"
    shutil.copytree(FIXTURES / fixture, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name].reshape(-1)[: len(values)] = values
    save_file(tensors, folder / "model.safetensors")
    return folder, tensors[name].size


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("fixture", ["tail", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.1.self_attn.q_norm.weight"]
)
def test_a_hub_folder(tmp_path, fixture, name, scan_layers):
    folder, size = hub_folder(tmp_path, fixture, name, [np.nan, np.inf, -np.inf])
    with pytest.raises(UserError) as error:
        huggingface.load(folder, scan_layers=scan_layers)
    assert f"{folder / 'model.safetensors'}: tensor {name}: 3 of {size:,} values are NaN or infinite" in str(error.value)


def test_import_and_export_leave_nothing_behind(tmp_path, capsys):
    folder, _ = hub_folder(tmp_path, "tail", NAME, [np.nan])
    assert run(import_model, f"model={folder}", f"out={tmp_path / 'run'}") == 2
    assert run(export, f"checkpoint={folder}", f"out={tmp_path / 'out'}") == 2
    assert all(f"tensor {NAME}: 1 of" in line for line in capsys.readouterr().err.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]
    with pytest.raises(UserError, match=f"tensor {NAME}: 1 of"):
        load_model(folder)


def test_a_run(tmp_path, capsys):
    model = huggingface.load(FIXTURES / "tail")
    norm = model.norm.scale[...]
    model.norm.scale[...] = norm.at[2].set(jnp.nan).at[4].set(jnp.inf)
    run_weights.write(weights.ModelWeights(model), tmp_path / "run" / CHECKPOINTS / "7")
    write_model_json(tmp_path / "run", model.config, ())
    message = rf"{CHECKPOINTS}/7: parameter norm\.scale: 2 of {norm.size} values are NaN or infinite"
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "run")
    assert run(export, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}") == 2
    assert "parameter norm.scale: 2 of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_release_of_google(tmp_path):
    tree, sizes = release_of("tail")
    tree["transformer/layer_3/mlp/linear"]["w"] = tree["transformer/layer_3/mlp/linear"]["w"].copy()
    tree["transformer/layer_3/mlp/linear"]["w"][0, 0] = np.nan
    ocp.PyTreeCheckpointer().save(tmp_path / "release", tree)
    with pytest.raises(UserError, match=r"release: array transformer/layer_3/mlp/linear/w: 1 of"):
        weights.build(google.GoogleRelease(tmp_path / "release", sizes))


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_every_float_is_judged_as_numpy_does(dtype):
    """All bit patterns of 16 bits; of wider floats random ones and the edges."""
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    patterns = (
        np.arange(2**16, dtype=bits) if bits.itemsize == 2 else np.random.default_rng(0).integers(0, 2**32, 4096, np.uint32).view(bits)
    )
    limits = np.array([jnp.finfo(dtype).max, jnp.finfo(dtype).tiny, 0, np.inf, -np.inf, np.nan], dtype)
    for values in (patterns.view(dtype), limits):
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(values)
        with pytest.raises(UserError, match=f"x: {np.count_nonzero(~finite):,} of {values.size:,} values"):
            weights.require_finite(values, "x")
        weights.require_finite(values[finite], "x")


def test_arrays_on_devices_are_named_by_their_path():
    tree = {"a": {"b": jnp.ones(3)}, "c": jnp.array([1.0, jnp.nan])}
    with pytest.raises(UserError, match="run: parameter c: 1 of 2 values"):
        weights.require_finite_arrays(tree, "run")
    weights.require_finite_arrays({"a": jnp.full((), jnp.finfo(jnp.bfloat16).max, jnp.bfloat16)}, "run")
    state = nnx.state(huggingface.load(FIXTURES / "tail"), nnx.Param)
    weights.require_finite_arrays(state, "run")
