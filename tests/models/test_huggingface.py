import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from mira_jax.errors import UserError
from mira_jax.models import huggingface
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gemma3"
NAMES = ("tail", "scaled", "bfloat16", "multimodal")


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_those_of_transformers(name, scan_layers):
    model = huggingface.load(FIXTURES / name, scan_layers=scan_layers)
    expected = np.load(FIXTURES / name / "expected.npz")
    logits = model.logits(model(jnp.asarray(expected["tokens"])))
    assert np.abs(logits - expected["logits"]).max() < 2e-4
    assert np.abs(expected["logits"]).max() > 1


def test_fixtures_are_small():
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
def test_writes_the_tensors_that_it_read(tmp_path, scan_layers):
    huggingface.save(huggingface.load(FIXTURES / "tail", scan_layers=scan_layers), tmp_path / "out")
    before, after = load_file(FIXTURES / "tail" / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert config["hidden_activation"] == "gelu_pytorch_tanh"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_large_checkpoints_are_split_and_read_back(tmp_path):
    model = huggingface.load(FIXTURES / "scaled")
    huggingface.save(model, tmp_path / "out", dtype=jnp.bfloat16, shard_bytes=30_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    again = huggingface.load(tmp_path / "out")
    np.testing.assert_array_equal(again.embedding[...], model.embedding[...].astype(jnp.bfloat16).astype(jnp.float32))
    (tmp_path / "out" / index["weight_map"]["model.norm.weight"]).unlink()
    with pytest.raises(UserError, match=r"missing; model\.safetensors\.index\.json names it"):
        huggingface.load(tmp_path / "out")


@pytest.fixture
def broken(tmp_path):
    """Copies a checkpoint with changed tensors."""

    def make(change):
        folder = tmp_path / "broken"
        shutil.copytree(FIXTURES / "tail", folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return make


def test_a_missing_tensor_is_named(broken):
    folder = broken(lambda tensors: tensors.pop("model.layers.3.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"broken: tensor model\.layers\.3\.mlp\.up_proj\.weight is missing"):
        huggingface.load(folder)


def test_a_surplus_tensor_is_named(broken):
    folder = broken(lambda tensors: tensors.update({"model.layers.7.mlp.up_proj.weight": np.zeros((2, 2), np.float32)}))
    with pytest.raises(UserError, match=r"tensor model\.layers\.7\.mlp\.up_proj\.weight is surplus"):
        huggingface.load(folder)


def test_a_misshapen_tensor_is_named_with_both_shapes(broken):
    folder = broken(lambda tensors: tensors.update({"model.embed_tokens.weight": np.zeros((64, 24), np.float32)}))
    with pytest.raises(UserError, match=r"model\.embed_tokens\.weight has shape \(64, 24\); config\.json says \(61, 24\)"):
        huggingface.load(folder)


def test_an_untied_output_matrix_is_refused(broken):
    folder = broken(lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}))
    with pytest.raises(UserError, match="ties the two"):
        huggingface.load(folder)


def test_a_cut_file_and_an_empty_folder_are_named(tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(FIXTURES / "tail", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole safetensors file"):
        huggingface.load(folder)
    weights.unlink()
    with pytest.raises(UserError, match="no weights"):
        huggingface.load(folder)
    with pytest.raises(UserError, match=r"config\.json: cannot read it"):
        huggingface.load(tmp_path / "none")


def test_names_of_multimodal_checkpoints_in_memory_are_read(tmp_path):
    shutil.copytree(FIXTURES / "multimodal", tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    renamed = {
        name.replace("language_model.model.", "model.language_model.")
        if name.startswith("language_model.")
        else "model." + name: values
        for name, values in tensors.items()
    }  # fmt: skip
    save_file(renamed, tmp_path / "new" / "model.safetensors")
    a, b = huggingface.load(FIXTURES / "multimodal"), huggingface.load(tmp_path / "new")
    np.testing.assert_array_equal(a.tail[1].attention.output[...], b.tail[1].attention.output[...])


def test_nothing_is_overwritten(tmp_path):
    model = Gemma3(Gemma3Config(20, 8, 1, 2, 1, 4, 8), rngs=nnx.Rngs(0))
    huggingface.save(model, tmp_path / "out")
    with pytest.raises(UserError, match="is already there"):
        huggingface.save(model, tmp_path / "out")


def test_square_matrices_survive_the_round_trip(tmp_path):
    """Width, heads times head dim, and mlp width all equal: only the tensor's name says what is transposed."""
    model = Gemma3(Gemma3Config(20, 8, 2, 2, 1, 4, 8), rngs=nnx.Rngs(3))
    huggingface.save(model, tmp_path / "out")
    tokens = jnp.arange(12, dtype=jnp.int32)[None]
    np.testing.assert_array_equal(huggingface.load(tmp_path / "out")(tokens), model(tokens))
