"""Adapters written for PEFT, opened by PEFT on a transformers model. Run by `make test-peers`."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from mira_jax import config as configs  # noqa: E402
from mira_jax import export  # noqa: E402
from mira_jax.models.lora import TARGETS, LoraConfig, trained  # noqa: E402
from mira_jax.training.checkpoint import Checkpoints  # noqa: E402
from mira_jax.training.load import build_model, load_config, load_model, lora_run, write_model_json  # noqa: E402
from mira_jax.training.state import TrainState, skeleton  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gemma3"
CASES = {
    "all": [LoraConfig(rank=4, alpha=8.0)],
    "attention": [LoraConfig(rank=1, alpha=0.5, targets=("query", "output"))],
    "mlp": [LoraConfig(rank=7, alpha=16.0, targets=("down", "gate"))],
    "kv": [LoraConfig(rank=3, alpha=3.0, targets=("value", "key", "up"))],
    "stacked": [LoraConfig(rank=4, alpha=8.0, targets=("query", "up")), LoraConfig(rank=2, alpha=1.0)],
}


class _Data:
    """In place of the iterator over batches."""

    def get_state(self) -> dict:
        return {}


def write_run(folder: Path, base: Path, settings: LoraConfig, before: tuple[LoraConfig, ...]) -> None:
    """A run that has trained adapters of `base`: all of them random numbers."""
    sizes, _ = load_config(base)
    bones = skeleton(lambda rngs: build_model(sizes, (), (*before, settings), rngs=rngs), trained)
    leaves, structure = jax.tree.flatten(bones.params)
    draw = np.random.default_rng(settings.rank)
    params = jax.tree.unflatten(structure, [jnp.asarray(0.2 * draw.standard_normal(leaf.shape), jnp.float32) for leaf in leaves])
    folder.mkdir()
    write_model_json(folder, sizes, (), lora_run(folder, settings, base))
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(1, TrainState(params, {}, jnp.zeros((), jnp.int32)), _Data())
    checkpoints.close()


def logits_of(model, tokens: np.ndarray) -> np.ndarray:
    tokens = torch.from_numpy(tokens).long()
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.float().numpy()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fixture", ["tail", "multimodal"])
def test_peft_computes_what_we_do(fixture, case, tmp_path):
    base = last = FIXTURES / fixture
    for number, settings in enumerate(CASES[case]):
        write_run(tmp_path / f"run{number}", last, settings, tuple(CASES[case][:number]))
        last = tmp_path / f"run{number}"
    export.main(configs.build(export.ExportConfig, {"checkpoint": str(last), "out": str(tmp_path / "adapter"), "adapter": True}))
    tokens = np.load(base / "expected.npz")["tokens"].astype(np.int32)
    ours, _ = load_model(last)
    expected = np.asarray(ours.logits(ours(jnp.asarray(tokens))))
    automatic = transformers.AutoModelForImageTextToText if fixture == "multimodal" else transformers.AutoModelForCausalLM
    theirs = automatic.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    before = logits_of(theirs, tokens)
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    logits = logits_of(adapted, tokens)
    assert np.abs(before - expected).max() > 0.05
    assert np.abs(logits - expected).max() < 2e-4
    places = {name.split(".lora_A")[0] for name, _ in adapted.named_parameters() if ".lora_A" in name}
    targets = {target for settings in CASES[case] for target in settings.targets}
    assert len(places) == len(targets & set(TARGETS)) * load_config(base)[0].layers
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)


def test_a_merged_export_is_the_same_model(tmp_path):
    base = FIXTURES / "tail"
    write_run(tmp_path / "run", base, LoraConfig(rank=4, alpha=8.0), ())
    sets = {"checkpoint": str(tmp_path / "run"), "dtype": "float32"}
    export.main(configs.build(export.ExportConfig, {**sets, "out": str(tmp_path / "merged")}))
    export.main(configs.build(export.ExportConfig, {**sets, "out": str(tmp_path / "adapter"), "adapter": True}))
    tokens = np.load(base / "expected.npz")["tokens"].astype(np.int32)
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", **options).eval()
    shutil.rmtree(tmp_path / "merged")
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, **options)
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    assert np.abs(logits_of(merged, tokens) - logits_of(adapted, tokens)).max() < 2e-4
