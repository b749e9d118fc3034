"""Writes a trained policy as a Hugging Face folder, for transformers, vLLM and every other engine.

python -m mira_jax.export --set checkpoint=runs/demo/mira --out runs/demo/export
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from mira_jax import commands
from mira_jax.errors import UserError
from mira_jax.models import huggingface
from mira_jax.models.gemma3 import Gemma3
from mira_jax.training import checkpoint as checkpoints
from mira_jax.trajectories import tokenizer as tokenizers


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    checkpoint: str = ""
    """A run's folder, of which the newest checkpoint is taken."""
    out: str = ""
    """The folder to write. If it is there already, it must hold this very export, and is left as it is."""
    dtype: str = "float32"
    """Of the tensors on disk: float32 or bfloat16."""


def main(config: ExportConfig) -> None:
    if not config.checkpoint or not config.out:
        raise UserError("export needs checkpoint=RUN and out=FOLDER")
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype is {config.dtype!r}; expected float32 or bfloat16")
    model, sizes = checkpoints.load_model(config.checkpoint)
    if not isinstance(model, Gemma3):
        raise UserError(f"{config.checkpoint}: a critic; only policies have an export")
    dtype = jnp.dtype(config.dtype)
    if _holds(Path(config.out), model, dtype):
        print(f"{config.out}: complete already")
        return
    tokenizer = Path(config.checkpoint) / tokenizers.FILE_NAME
    huggingface.save(model, config.out, tokenizer if tokenizer.is_file() else None, dtype)
    print(f"{config.out}: a Gemma3 of {sizes.parameters:,} parameters, {config.dtype}")


def _holds(out: Path, model: Gemma3, dtype: jnp.dtype) -> bool:
    """Whether `out` is the whole export of just these numbers: an interrupted phase may ask for it again."""
    about = out / huggingface.CONFIG
    if not about.is_file() or json.loads(about.read_bytes()).get("torch_dtype") != str(dtype):
        return False
    there = huggingface.load(out, param_dtype=dtype, scan_layers=model.config.scan_layers)
    if there.config != model.config:
        return False
    pairs = zip(jax.tree.leaves(nnx.state(there)), jax.tree.leaves(nnx.state(model)), strict=True)
    return all(bool(jnp.array_equal(ours, theirs.astype(dtype))) for ours, theirs in pairs)


if __name__ == "__main__":
    sys.exit(commands.run(main, ExportConfig, __doc__, flags=("checkpoint", "out")))
