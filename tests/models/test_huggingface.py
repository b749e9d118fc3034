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
    with pytest.raises(UserError, match="already exists"):
        huggingface.save(model, tmp_path / "out")


def test_square_matrices_survive_the_round_trip(tmp_path):
    """Width, heads times head dim, and mlp width all equal: only the tensor's name says what is transposed."""
    model = Gemma3(Gemma3Config(20, 8, 2, 2, 1, 4, 8), rngs=nnx.Rngs(3))
    huggingface.save(model, tmp_path / "out")
    tokens = jnp.arange(12, dtype=jnp.int32)[None]
    np.testing.assert_array_equal(huggingface.load(tmp_path / "out")(tokens), model(tokens))


E = "model.embed_tokens.weight"


@pytest.fixture
def variant(tmp_path):
    """A copy of a checkpoint whose tensors and config are changed by functions that return new ones."""

    def make(tensors=lambda t: t, config=lambda c: c):
        folder = tmp_path / "variant"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        save_file(tensors(load_file(FIXTURES / "tail" / "model.safetensors")), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config(json.loads((FIXTURES / "tail" / "config.json").read_text()))))
        return folder

    return make


def gives_the_recorded_logits(folder, tolerance=2e-4):
    expected = np.load(FIXTURES / "tail" / "expected.npz")
    model = huggingface.load(folder)
    return np.abs(model.logits(model(jnp.asarray(expected["tokens"]))) - expected["logits"]).max() < tolerance


def test_tensors_without_a_prefix_are_read(variant):
    """transformers 5.23 reads them too; 4.57 does not."""
    assert gives_the_recorded_logits(variant(lambda t: {name.removeprefix("model."): values for name, values in t.items()}))


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("base_model.model.", r"saved from inside of PEFT; remove base_model\.model\."),
        ("_orig_mod.", r"saved from inside of torch\.compile; remove _orig_mod\."),
        ("module.", r"saved from inside of DataParallel; remove module\."),
        ("model.", r"tensor model\.model\..* has an unknown prefix"),
        ("policy.", r"tensor policy\.model\..* has an unknown prefix"),
    ],
)
def test_wrappers_are_named(variant, prefix, message):
    with pytest.raises(UserError, match=message):
        huggingface.check(variant(lambda t: {prefix + name: values for name, values in t.items()}))


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_matrix_that_equals_the_embedding_is_read(variant, tied):
    with_head = lambda t: {**t, "lm_head.weight": t[E]}  # noqa: E731
    assert gives_the_recorded_logits(variant(with_head, lambda c: {**c, "tie_word_embeddings": tied}))


def test_an_output_matrix_of_another_dtype_is_compared_by_value(variant):
    halves = lambda t: {name: values.astype(jnp.bfloat16) for name, values in t.items()}  # noqa: E731
    huggingface.check(variant(lambda t: {**halves(t), "lm_head.weight": halves(t)[E].astype(np.float32)}))
    with pytest.raises(UserError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight; Gemma3 ties the two"):
        huggingface.check(variant(lambda t: {**halves(t), "lm_head.weight": t[E]}))


def test_an_untied_model_without_an_output_matrix_is_refused(variant):
    with pytest.raises(UserError, match=r"config\.json: tie_word_embeddings is false, but there is no lm_head\.weight"):
        huggingface.check(variant(config=lambda c: {**c, "tie_word_embeddings": False}))
    with pytest.raises(UserError, match=r"config\.json: tie_word_embeddings is 'false'; expected true or false"):
        huggingface.check(variant(config=lambda c: {**c, "tie_word_embeddings": "false"}))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model.layers.0.self_attn.q_proj.qweight", np.int32),
        ("model.layers.0.self_attn.q_proj.weight.absmax", np.float32),
        ("model.layers.0.self_attn.q_proj.weight_scale", np.float32),
        ("model.layers.0.self_attn.q_proj.weight", np.uint8),
        ("model.layers.0.self_attn.q_proj.weight", jnp.float8_e4m3fn),
    ],
)
def test_quantised_tensors_are_named_as_such(variant, name, dtype):
    with pytest.raises(UserError, match=rf"tensor {name} \(\w+\) is of a quantised model"):
        huggingface.check(variant(lambda t: {**t, name: np.ones((2, 2)).astype(dtype)}))


def test_adapters_are_named_as_such(variant):
    with pytest.raises(UserError, match=r"q_proj\.base_layer\.weight is of an adapter; merge it first with PEFT"):
        huggingface.check(variant(lambda t: {name.replace("q_proj.", "q_proj.base_layer."): values for name, values in t.items()}))
    folder = variant()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds an adapter \(adapter_config\.json\)"):
        huggingface.check(folder)


def test_layers_beyond_those_of_the_config_are_refused(variant):
    """transformers would leave the last one out."""
    fewer = lambda c: {**c, "num_hidden_layers": 6, "layer_types": c["layer_types"][:6]}  # noqa: E731
    with pytest.raises(UserError, match=r"tensor model\.layers\.6\..* is surplus: a Gemma3 of this config\.json, with 6 layers"):
        huggingface.check(variant(config=fewer))
    more = lambda c: {**c, "num_hidden_layers": 8, "layer_types": None}  # noqa: E731
    with pytest.raises(UserError, match=r"tensor model\.layers\.7\..* is missing; config\.json says num_hidden_layers 8"):
        huggingface.check(variant(config=more))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not valid JSON: holds list where an object is expected"),
        (b"null", "not valid JSON: holds NoneType"),
        (b"{,}", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON: Unexpected UTF-8 BOM"),
        (b"{}".decode().encode("utf-16"), "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"model_type": "gemma3_text", "rms_norm_eps": NaN}', "not valid JSON: NaN is no JSON"),
        (b'{"model_type": "gemma3_text", "rms_norm_eps": 1e999}', "not valid JSON: 1e999 is too large a number"),
        (b'{"hidden_size": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a pointer of Git LFS"),
    ],
)
def test_odd_json_is_one_message(tmp_path, text, message):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(UserError, match=rf"config\.json: {message}"):
        huggingface.check(tmp_path)
