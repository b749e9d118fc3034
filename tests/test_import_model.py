import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file

from mira_jax import export, import_model
from mira_jax.models import huggingface
from mira_jax.training.load import load_config, load_model
from mira_jax.trajectories.tokenizer import FILES, Tokenizer
from tests import synthetic
from tests.models.test_google import release_of

FIXTURES = Path(__file__).parent / "fixtures" / "gemma3"


def run(module, *settings):
    argv = [part for setting in settings for part in ("--set", setting)]
    return module.COMMAND.run(argv)


def bits(folder):
    """Every tensor of a folder: dtype, shape and bytes."""
    return {name: value for path in folder.glob("*.safetensors") for name, value in bits_of(load_file(path)).items()}


def bits_of(tensors):
    return {name: (str(values.dtype), values.shape, values.tobytes()) for name, values in tensors.items()}


def with_rows(rows, embedding):
    """The embedding with as many rows as a tokenizer has pieces."""
    return np.pad(embedding, ((0, rows - len(embedding)), (0, 0)))


@pytest.mark.parametrize("name", ["tail", "bfloat16", "multimodal"])
def test_what_comes_in_goes_out_bit_for_bit(name, tmp_path):
    assert run(import_model, f"model={FIXTURES / name}", f"out={tmp_path / 'run'}") == 0
    assert run(export, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}") == 0
    assert bits(tmp_path / "out") == bits(FIXTURES / name)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


def test_scanned_layers_come_in_and_go_out(tmp_path):
    """Twelve layers: stacked in the run, apart on the Hub."""
    tensors = load_file(FIXTURES / "tail" / "model.safetensors")
    for layer in range(7, 13):
        for name in [name for name in tensors if name.startswith("model.layers.0.")]:
            tensors[name.replace(".0.", f".{layer}.", 1)] = tensors[name] + layer
    config = json.loads((FIXTURES / "tail" / "config.json").read_text())
    config.update(num_hidden_layers=13, layer_types=None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    assert run(import_model, f"model={tmp_path / 'in'}", f"out={tmp_path / 'run'}") == 0
    sizes, heads = load_config(tmp_path / "run")
    assert sizes.grouping == (6, 2) and not heads
    assert run(export, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}") == 0
    assert bits(tmp_path / "out") == bits(tmp_path / "in")


def test_the_run_is_a_model_like_any_other(tmp_path):
    """Its numbers stay as they came and are cast when read."""
    assert run(import_model, f"model={FIXTURES / 'bfloat16'}", f"out={tmp_path / 'run'}") == 0
    model, _ = load_model(tmp_path / "run")
    expected = np.load(FIXTURES / "bfloat16" / "expected.npz")
    logits = model.logits(model(jnp.asarray(expected["tokens"])))
    assert np.abs(logits - expected["logits"]).max() < 2e-4
    assert run(export, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'wide'}", "dtype=float32") == 0
    tensors = load_file(FIXTURES / "bfloat16" / "model.safetensors")
    for name, values in load_file(tmp_path / "wide" / "model.safetensors").items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, tensors[name].astype(np.float32))


def test_googles_release_becomes_a_run(tmp_path):
    tree, sizes = release_of("scaled")
    tree["transformer/embedder"]["input_embedding"] = with_rows(320, tree["transformer/embedder"]["input_embedding"])
    ocp.PyTreeCheckpointer().save(tmp_path / "google" / "gemma3", tree)
    tokenizer = synthetic.write_tokenizer(tmp_path / "google" / "tokenizer.model")
    settings = [f"sizes.{name}={json.dumps(value)}" for name, value in sizes.items()]
    assert run(import_model, f"model={tmp_path / 'google' / 'gemma3'}", f"out={tmp_path / 'run'}", *settings) == 0
    assert (tmp_path / "run" / "tokenizer.model").read_bytes() == tokenizer.read_bytes()
    assert run(export, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}") == 0
    tensors = load_file(FIXTURES / "scaled" / "model.safetensors")
    tensors["model.embed_tokens.weight"] = with_rows(320, tensors["model.embed_tokens.weight"])
    assert bits(tmp_path / "out") == bits_of(tensors)
    # Google's release has no chat template, and says nothing of ends: both are those of the tokenizer.
    assert "<start_of_turn>" in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["chat_template"]
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["eos_token_id"] == [1, 5]


@pytest.fixture
def multimodal(tmp_path):
    """A multimodal folder with all that one of the Hub has, and a run trained from what was imported of it."""
    hub = tmp_path / "hub"
    shutil.copytree(FIXTURES / "multimodal", hub)
    tensors = load_file(hub / "model.safetensors")
    name = "language_model.model.embed_tokens.weight"
    save_file({**tensors, name: with_rows(350, tensors[name])}, hub / "model.safetensors")
    config = json.loads((hub / "config.json").read_text())
    config["text_config"]["vocab_size"] = 350
    (hub / "config.json").write_text(json.dumps(config))
    for name in ("preprocessor_config.json", "processor_config.json", "special_tokens_map.json"):
        (hub / name).write_text(json.dumps({"name": name}))
    (hub / "chat_template.json").write_text('{"chat_template": "{{ messages[0].content }}"}')
    (hub / "generation_config.json").write_text('{"eos_token_id": [1, 106], "top_k": 64}')
    tokenizer = Tokenizer(synthetic.write_tokenizer(hub / "tokenizer.model"))
    (hub / "tokenizer.json").write_text(json.dumps(tokenizer.to_json()))
    assert run(import_model, f"model={hub}", f"out={tmp_path / 'imported'}") == 0
    shutil.copytree(tmp_path / "imported", tmp_path / "trained", ignore=shutil.ignore_patterns("huggingface"))
    (tmp_path / "trained" / "config.yaml").write_text(f"init_from: {tmp_path / 'imported'}\n")
    return tmp_path


def test_vision_and_side_files_pass_through_training(multimodal):
    hub, out = multimodal / "hub", multimodal / "out"
    shutil.move(hub, multimodal / "elsewhere")
    assert run(export, f"checkpoint={multimodal / 'trained'}", f"out={out}") == 0
    assert bits(out) == bits(multimodal / "elsewhere")
    of_tokenizer = ("tokenizer.json", "tokenizer.model", "chat_template.json", "special_tokens_map.json")
    for name in ("preprocessor_config.json", "processor_config.json", *of_tokenizer):
        assert (out / name).read_bytes() == (multimodal / "elsewhere" / name).read_bytes()
    generation = json.loads((out / "generation_config.json").read_text())
    # Token 106 is a byte of this tokenizer, whose end of turn is 5.
    assert generation["top_k"] == 64 and generation["eos_token_id"] == [1, 5]
    config, before = (json.loads((folder / "config.json").read_text()) for folder in (out, multimodal / "elsewhere"))
    for key in ("architectures", "model_type", "vision_config", "mm_tokens_per_image", "image_token_index"):
        assert config[key] == before[key]
    assert config["text_config"]["hidden_size"] == before["text_config"]["hidden_size"]
    assert config["text_config"]["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_names_of_multimodal_checkpoints_in_memory_go_out_as_on_the_hub(tmp_path):
    shutil.copytree(FIXTURES / "multimodal", tmp_path / "new")
    tensors = {
        name.replace("language_model.model.", "model.language_model.") if name.startswith("language_model.") else "model." + name: values
        for name, values in load_file(FIXTURES / "multimodal" / "model.safetensors").items()
    }
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "new" / "model.safetensors")
    assert run(export, f"checkpoint={tmp_path / 'new'}", f"out={tmp_path / 'out'}") == 0
    assert bits(tmp_path / "out") == bits(FIXTURES / "multimodal")


def test_the_vision_tower_can_be_left_out_or_taken_from_a_folder(multimodal, capsys):
    assert run(export, f"checkpoint={multimodal / 'trained'}", f"out={multimodal / 'text'}", "text_only=true") == 0
    text = {name.removeprefix("language_model."): tensor for name, tensor in bits(multimodal / "hub").items() if "language" in name}
    assert bits(multimodal / "text") == text
    shutil.rmtree(multimodal / "imported")
    assert run(export, f"checkpoint={multimodal / 'trained'}", f"out={multimodal / 'gone'}") == 0
    assert "is gone: its vision tower, if it had one, is left out" in capsys.readouterr().err
    assert bits(multimodal / "gone") == text
    settings = [f"checkpoint={multimodal / 'trained'}", f"out={multimodal / 'named'}"]
    assert run(export, *settings, f"vision={FIXTURES / 'tail'}") == 2
    assert "no vision tower there" in capsys.readouterr().err
    assert run(export, *settings, f"vision={multimodal / 'hub'}") == 0
    assert bits(multimodal / "named") == bits(multimodal / "hub")


def test_another_tokenizer_leaves_the_old_ones_files_behind(multimodal):
    for name in FILES:
        (multimodal / "trained" / name).unlink(missing_ok=True)
    synthetic.write_tokenizer(multimodal / "trained" / "tokenizer.model", 350)
    (multimodal / "trained" / "run_files.json").unlink()
    assert run(export, f"checkpoint={multimodal / 'trained'}", f"out={multimodal / 'out'}") == 0
    assert (multimodal / "out" / "tokenizer.model").read_bytes() == (multimodal / "trained" / "tokenizer.model").read_bytes()
    assert (multimodal / "out" / "tokenizer.json").read_bytes() != (multimodal / "hub" / "tokenizer.json").read_bytes()
    assert not (multimodal / "out" / "chat_template.json").exists()
    assert (multimodal / "out" / "preprocessor_config.json").exists()


@pytest.mark.parametrize("rows", [262_144, 262_208])
def test_both_numbers_of_rows_work(rows, tmp_path):
    config = json.loads((FIXTURES / "multimodal" / "config.json").read_text())
    config["text_config"].update(vocab_size=rows)
    tensors = load_file(FIXTURES / "multimodal" / "model.safetensors")
    tensors["language_model.model.embed_tokens.weight"] = np.random.default_rng(0).normal(size=(rows, 24)).astype(np.float32)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    assert run(import_model, f"model={tmp_path / 'in'}", f"out={tmp_path / 'run'}") == 0
    assert run(export, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}") == 0
    assert bits(tmp_path / "out") == bits(tmp_path / "in")
    assert huggingface.load_config(tmp_path / "out").vocabulary_size == rows


def test_bad_input_is_one_message_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    tail = FIXTURES / "tail"
    for settings, message in [
        ([], "model: name the folder to import, for example --model"),
        ([f"model={tmp_path / 'none'}", f"out={tmp_path / 'run'}"], "no such folder"),
        ([f"model={tmp_path / 'empty'}", f"out={tmp_path / 'run'}"], "no model here"),
        ([f"model={tail}", f"out={tmp_path / 'file'}"], "choose another folder"),
        ([f"model={tail}", f"out={tmp_path / 'run'}", "sizes.window=5"], "its config.json states all sizes"),
        ([f"model={tail}", f"out={tmp_path / 'run'}", f"tokenizer={tmp_path / 'none'}"], "no tokenizer"),
    ]:
        assert run(import_model, *settings) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert {path.name for path in tmp_path.iterdir()} == {"file", "empty"}


def test_a_run_whose_parameters_do_not_fit_is_named(tmp_path, capsys):
    assert run(import_model, f"model={FIXTURES / 'tail'}", f"out={tmp_path / 'run'}") == 0
    about = json.loads((tmp_path / "run" / "model.json").read_text())
    about["model"]["mlp_width"] += 1
    (tmp_path / "run" / "model.json").write_text(json.dumps(about))
    (tmp_path / "run" / "run_files.json").unlink()
    assert run(export, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}") == 2
    assert "parameter tail.0.mlp.down has shape (40, 24); model.json says (41, 24)" in capsys.readouterr().err


def test_an_adapter_without_its_model_is_named(tmp_path, capsys):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    assert run(import_model, f"model={tmp_path / 'adapter'}", f"out={tmp_path / 'run'}") == 2
    assert "adapter: holds an adapter without its model; merge it" in capsys.readouterr().err
