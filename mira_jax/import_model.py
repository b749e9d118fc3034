"""Imports a Gemma3: converts a Hugging Face folder or Google's Orbax release to a run folder.

    mira import-model --model path/to/gemma-3-12b-it --out runs/gemma-3-12b-it

The parameters keep their dtype and are cast when the run is read. The vision tower of a multimodal folder is kept for
exports. One parameter is in memory at a time.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

from mira_jax import commands
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import partial_folder, publish, sole_writer
from mira_jax.model_files import digests_of
from mira_jax.models import google, huggingface
from mira_jax.models.weights import Weights
from mira_jax.needs import LEAST_SPACE, Needs
from mira_jax.schema import Options
from mira_jax.training import load, run_weights
from mira_jax.training.checkpoint import CHECKPOINTS
from mira_jax.trajectories.tokenizer import Tokenizer, find_tokenizer


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    model: str = ""
    """A Hugging Face folder, or the folder of Google's Orbax release."""
    out: str = ""
    """The run folder to create. It can be used for init_from, serve, score and export."""
    tokenizer: str | None = None
    """A folder with a tokenizer, a tokenizer.json or a SentencePiece model. Default: the tokenizer in the model's folder, or for
    Google's release in its parent folder."""
    sizes: Annotated[dict[str, Any], Options({"": "mira_jax.models.config:Gemma3Config"})] = dataclasses.field(default_factory=dict)
    """For a release whose size is not one of Google's: fields of Gemma3Config that the shapes do not determine, such as window."""


def main(config: ImportConfig) -> None:
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; choose another folder")
    with sole_writer(out, "a run"):
        _import(config, out)


def _import(config: ImportConfig, out: Path) -> None:
    weights = open_source(config)
    tokenizer = open_tokenizer(config)
    if tokenizer:
        tokenizer.fit(weights.config.vocabulary_size, config.model)
    try:
        with partial_folder(out) as partial:
            _write(config, weights, tokenizer, partial)
            publish(partial, out)
    except OSError as error:
        raise UserError(f"{out}: cannot write the run: {error}; free some disk space, or choose another folder") from None
    print(f"{out}: a Gemma3 of {weights.config.parameters:,} parameters" + ("" if tokenizer else "; there is no tokenizer"))


def open_source(config: ImportConfig) -> Weights:
    """Raises UserError if the folder is of neither kind, or its content is inconsistent."""
    folder = Path(config.model)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of a model")
    if google.is_release(folder):
        return google.GoogleRelease(folder, config.sizes)
    if config.sizes:
        raise ConfigError("sizes", f"{folder} is no release of Google's; its config.json states all sizes")
    if not (folder / huggingface.CONFIG).exists():
        if (folder / huggingface.ADAPTER_CONFIG).exists():
            raise UserError(f"{folder}: holds an adapter without its model; merge it into its model first with PEFT (merge_and_unload)")
        raise UserError(f"{folder}: no model here; expected a Hugging Face folder ({huggingface.CONFIG}) or Google's Orbax release")
    return huggingface.HubFolder(folder)


def open_tokenizer(config: ImportConfig) -> Tokenizer | None:
    """The tokenizer to keep, or None if there is none. Raises UserError if the specified tokenizer is missing or cannot be read."""
    folder = Path(config.model)
    places = [folder] if (folder / huggingface.CONFIG).exists() else [folder, folder.resolve().parent]
    found = config.tokenizer or find_tokenizer(places)
    return Tokenizer(found) if found else None


def _write(config: ImportConfig, weights: Weights, tokenizer: Tokenizer | None, run: Path) -> None:
    run_weights.write(weights, run / CHECKPOINTS / "0")
    contents = tokenizer.contents() if tokenizer else {}
    with digests_of(run, [load.MODEL, *contents]):
        load.write_model_json(run, weights.config, ())
        for name, content in contents.items():
            (run / name).write_bytes(content)
    if isinstance(weights, huggingface.HubFolder):
        huggingface.keep_origin(config.model, run / load.ORIGIN)


def needs(config: ImportConfig, found: Needs) -> None:
    size = 0
    if found.input("model", config.model):
        with found.attempt("model"):
            size = 4 * open_source(config).config.parameters
    found.input("tokenizer", config.tokenizer)
    found.output("out", config.out, max(size, LEAST_SPACE))


REQUIRED = {
    "model": "name the folder to import, for example --model path/to/gemma-3-12b-it",
    "out": "name the run folder to create, for example --out runs/gemma",
}
COMMAND = commands.Command("import-model", main, ImportConfig, __doc__, flags=("model", "out", "tokenizer"), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
