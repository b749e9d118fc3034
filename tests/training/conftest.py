"""A run that was never disturbed, one for each module that asks for it."""

import pytest
import yaml

from tests import synthetic
from tests.training.runs import CONFIG, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a tokenizer, a config, and one run that was never disturbed."""
    folder = tmp_path_factory.mktemp("train")
    synthetic.write_folder(folder / "data", count=30, infra_every=6)
    synthetic.write_tokenizer(folder / "tokenizer.model")
    config = {**CONFIG, "tokenizer": {"path": str(folder / "tokenizer.model")}}
    config["data"] = {**CONFIG["data"], "folders": [str(folder / "data")]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert run(folder, "undisturbed") == 0
    return folder
