"""Writes a policy as a Hugging Face folder, for transformers, vLLM and every other engine.

    python -m mira_jax.export --checkpoint runs/demo/mira --out runs/demo/export

A policy that came from a multimodal Gemma3 gets its vision tower back. One parameter is in memory at a time.
"""

import dataclasses
import sys
from pathlib import Path

import jax.numpy as jnp
import yaml

from mira_jax import commands
from mira_jax.errors import UserError
from mira_jax.models import huggingface
from mira_jax.models.lora import MergedWeights
from mira_jax.models.weights import Weights
from mira_jax.training import load, run_weights
from mira_jax.training.run_folder import CONFIG
from mira_jax.trajectories import tokenizer as tokenizers


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    checkpoint: str = ""
    """A run's folder, of which the newest checkpoint is taken, or a Hugging Face folder."""
    out: str = ""
    """The folder to write. If it is there already, it must hold this very export, and is left as it is."""
    dtype: str | None = None
    """Of the text model's tensors on disk: float32 or bfloat16. Default: as the checkpoint has them."""
    vision: str | None = None
    """A multimodal Hugging Face folder whose vision tower is exported with the model. Default: that of the folder from
    which the run began, by way of any number of runs."""
    text_only: bool = False
    """Leave the vision tower out."""


def main(config: ExportConfig) -> None:
    if not config.checkpoint or not config.out:
        raise UserError("export needs checkpoint=RUN and out=FOLDER")
    if config.dtype not in (None, "float32", "bfloat16"):
        raise UserError(f"dtype is {config.dtype!r}; expected float32 or bfloat16")
    if config.vision and config.text_only:
        raise UserError("vision and text_only=true exclude each other; give one of them")
    weights = open_weights(config.checkpoint)
    tokenizer = Path(config.checkpoint) / tokenizers.FILE_NAME
    origin = find_origin(config.checkpoint)
    vision = None if config.text_only else config.vision
    if not config.text_only and not vision and origin and huggingface.vision_tensors(origin):
        vision = origin
    plan = {
        "tokenizer_path": tokenizer if tokenizer.is_file() else None,
        "dtype": jnp.dtype(config.dtype) if config.dtype else None,
        "origin": origin,
        "vision": vision,
    }
    if huggingface.holds(weights, config.out, **plan):
        print(f"{config.out}: complete already")
        return
    huggingface.write(weights, config.out, **plan)
    kind = f"with the vision tower of {vision}" if vision else "text-only"
    print(f"{config.out}: a Gemma3 of {weights.config.parameters:,} parameters, {config.dtype or 'as stored'}, {kind}")


def open_weights(folder: str | Path) -> Weights:
    """The parameters to export, of a run or a Hugging Face folder; adapters are merged into those that they belong to."""
    _, heads = load.load_config(folder)
    lora = load.read_lora(folder)
    if lora and not heads:
        return MergedWeights(open_weights(load.lora_base(folder)), load.load_adapters(folder), lora.config.scale)
    if (Path(folder) / load.MODEL).exists():
        return run_weights.RunWeights(folder)
    return huggingface.HubFolder(folder)


def find_origin(folder: str | Path) -> Path | None:
    """The Hugging Face folder that a model began as: itself, what its import kept of it, or that of the run's `init_from`.

    Says so on stderr if the trail ends at a folder that is gone.
    """
    folder = Path(folder)
    if not folder.is_dir():
        print(f"{folder}, from which the run began, is gone: its vision tower, if it had one, is left out", file=sys.stderr)
        return None
    if not (folder / load.MODEL).exists():
        return folder
    if (folder / load.ORIGIN).is_dir():
        return folder / load.ORIGIN
    if not (folder / CONFIG).is_file():
        return None
    init_from = (yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")) or {}).get("init_from")
    return find_origin(init_from) if init_from else None


if __name__ == "__main__":
    sys.exit(commands.run(main, ExportConfig, __doc__, flags=("checkpoint", "out")))
