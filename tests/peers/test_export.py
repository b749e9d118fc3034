"""Exports opened by transformers. Run by `make test-peers`."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mira_jax import export, import_model  # noqa: E402

MULTIMODAL = Path(__file__).parents[1] / "fixtures" / "gemma3" / "multimodal"


def run(module, *settings):
    return module.COMMAND.run([part for setting in settings for part in ("--set", setting)])


def test_a_multimodal_model_comes_back_whole(tmp_path):
    """Through an import and an export: the same class, the same numbers of the vision tower, the same logits of text."""
    assert run(import_model, f"model={MULTIMODAL}", f"out={tmp_path / 'run'}") == 0
    assert run(export, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}") == 0
    ours, theirs = (
        transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        for folder in (tmp_path / "out", MULTIMODAL)
    )
    assert type(ours).__name__ == "Gemma3ForConditionalGeneration"
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, values in ours.state_dict().items():
        assert torch.equal(values, expected[name]), name
    recorded = np.load(MULTIMODAL / "expected.npz")
    tokens = torch.from_numpy(recorded["tokens"]).long()
    with torch.no_grad():
        logits = ours(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.numpy()
    assert np.abs(logits - recorded["logits"]).max() < 2e-4
