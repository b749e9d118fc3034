"""Writes a trained policy as a Hugging Face folder, for transformers, vLLM and every other engine.

python -m mira_jax.export --set checkpoint=runs/demo/mira --out runs/demo/export
"""

import dataclasses
import sys
from pathlib import Path

import jax.numpy as jnp

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
    """The folder to write. It must not be there yet."""
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
    tokenizer = Path(config.checkpoint) / tokenizers.FILE_NAME
    huggingface.save(model, config.out, tokenizer if tokenizer.is_file() else None, jnp.dtype(config.dtype))
    print(f"{config.out}: a Gemma3 of {sizes.parameters:,} parameters, {config.dtype}")


if __name__ == "__main__":
    sys.exit(commands.run(main, ExportConfig, __doc__, flags=("checkpoint", "out")))
