"""Exports a policy as a Hugging Face folder, for transformers, vLLM and other engines.

    mira export --checkpoint runs/demo/mira --out runs/demo/export

If the policy was trained from a multimodal Gemma3, the export includes its vision tower. One parameter is in memory at a
time.

Adapters are merged into their matrices in float32. The command prints how much of their change remains after the cast to the
dtype of the export. `--set adapter=true` exports only the adapters, in PEFT's layout.
"""

import dataclasses
import filecmp
import sys
from pathlib import Path
from typing import Literal

import jax.numpy as jnp

from mira_jax import commands
from mira_jax import config as configs
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import partial_folder, publish, sole_writer
from mira_jax.models import huggingface
from mira_jax.models.huggingface import peft
from mira_jax.models.lora import TARGETS
from mira_jax.models.merging import NOTHING, MergedWeights
from mira_jax.models.weights import Weights
from mira_jax.needs import LEAST_SPACE, Needs
from mira_jax.training import load, run_weights
from mira_jax.training.run_folder import CONFIG
from mira_jax.trajectories.tokenizer import find_tokenizer

LEAST_SHARE, MOST_ERROR = 0.99, 0.1
"""Limits for the change by adapters in an export (`mira_jax.models.merging.Survival`). The command warns beyond these."""


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    checkpoint: str = ""
    """A run folder, whose newest checkpoint is used, or a Hugging Face folder."""
    out: str = ""
    """The folder to write. If it already exists, it must contain this same export, and is left unchanged."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Dtype of the text model's tensors on disk. Default: the dtypes of the checkpoint."""
    vision: str | None = None
    """A multimodal Hugging Face folder whose vision tower is included in the export. Default: the folder that the run was
    initialised from, directly or through other runs."""
    text_only: bool = False
    """Export without the vision tower."""
    adapter: bool = False
    """Write only the adapters of a LoRA run, in float32, as PEFT's adapter_config.json and adapter_model.safetensors."""

    def __post_init__(self) -> None:
        if self.vision and self.text_only:
            raise ConfigError("vision", "vision and text_only=true exclude each other; give one of them")
        if self.adapter and self.dtype == "bfloat16":
            raise ConfigError("dtype", "adapter=true writes float32; leave out dtype")


def main(config: ExportConfig) -> None:
    with sole_writer(config.out, "an export"):
        _export(config)


def _export(config: ExportConfig) -> None:
    weights = open_weights(config.checkpoint)
    origin = find_origin(config.checkpoint)
    vision = None if config.text_only else config.vision
    if not config.text_only and not vision and origin and huggingface.vision_tensors(origin):
        vision = origin
    if config.adapter:
        return export_adapter(config.checkpoint, weights, Path(config.out), multimodal=bool(vision))
    plan = {
        "tokenizer_path": find_tokenizer([config.checkpoint, *([origin] if origin else [])]),
        "dtype": jnp.dtype(config.dtype) if config.dtype else None,
        "origin": origin,
        "vision": vision,
    }
    if huggingface.holds(weights, config.out, **plan):
        print(f"{config.out}: complete already")
    else:
        huggingface.write(weights, config.out, **plan)
        kind = f"with the vision tower of {vision}" if vision else "text-only"
        print(f"{config.out}: a Gemma3 of {weights.config.parameters:,} parameters, {config.dtype or 'as stored'}, {kind}")
    if isinstance(weights, MergedWeights):
        _report_survival(weights)


def export_adapter(run: str, weights: Weights, out: Path, multimodal: bool) -> None:
    """Writes the adapters of `run` to a new folder, or accepts a folder that already contains them.

    Raises:
        UserError: the run has no adapters, or `out` contains something else.
    """
    chain = load.lora_chain(run)
    if not chain:
        raise ConfigError("adapter", f"{run}: has no adapters; leave out adapter=true")
    base = load.lora_base(chain[0][0])
    loadable = not (base / load.MODEL).exists()
    layers = [(load.load_adapters(folder), settings) for folder, settings in chain]
    try:
        with partial_folder(out) as partial:
            peft.write_adapter(partial, weights.config, layers, str(base) if loadable else None, multimodal)
            names = [peft.CONFIG, peft.TENSORS]
            if out.is_dir() and filecmp.cmpfiles(partial, out, names, shallow=False)[0] == names:
                print(f"{out}: complete already")
                return
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise UserError(f"{out}: already exists; choose another folder")
            publish(partial, out)
    except OSError as error:
        raise UserError(f"{out}: cannot write the adapters: {error}; free some disk space, or choose another folder") from None
    print(f"{out}: the adapters, for PEFT; they belong to " + (str(base) if loadable else f"an export of {base}"))


def _report_survival(weights: MergedWeights) -> None:
    kinds = weights.survival
    total = sum(kinds.values(), NOTHING)
    each = ", ".join(f"{name} {kinds[name].share:.1%}" for name in TARGETS if name in kinds)
    print(f"adapters: {total.share:.1%} of their change is in the export ({each}), with an error of {total.error:.1%} of its norm")
    if total.share < LEAST_SHARE or total.error > MOST_ERROR:
        print(
            "warning: the export differs from the trained policy, because bfloat16 cannot represent the change by the adapters; "
            "set dtype=float32, or adapter=true to export only the adapters, and choose another out",
            file=sys.stderr,
        )


def open_weights(folder: str | Path) -> Weights:
    """The parameters to export, from a run or a Hugging Face folder. Adapters are merged into their matrices."""
    _, heads = load.load_config(folder)
    if not heads and (chain := load.lora_chain(folder)):
        layers = [(load.load_adapters(run), settings.scale) for run, settings in chain]
        return MergedWeights(open_weights(load.lora_base(chain[0][0])), layers)
    if (Path(folder) / load.MODEL).exists():
        return run_weights.RunWeights(folder)
    return huggingface.HubFolder(folder)


def find_origin(folder: str | Path) -> Path | None:
    """The Hugging Face folder that a model comes from: the folder itself, the files kept by its import, or the origin of the
    run's `init_from`.

    Prints a note on stderr if a folder along the way no longer exists.
    """
    folder = Path(folder)
    if not folder.is_dir():
        print(f"{folder}, from which the run began, is gone: its vision tower, if it had one, is left out", file=sys.stderr)
        return None
    if not (folder / load.MODEL).exists():
        return folder
    if load.read_lora(folder):
        return find_origin(load.lora_base(folder))
    if (folder / load.ORIGIN).is_dir():
        return folder / load.ORIGIN
    if not (folder / CONFIG).is_file():
        return None
    init_from = configs.read(folder / CONFIG).get("init_from")
    return find_origin(init_from) if init_from else None


def needs(config: ExportConfig, found: Needs) -> None:
    size = 0
    if found.input("checkpoint", config.checkpoint):
        with found.attempt("checkpoint"):
            size = 4 * load.load_config(config.checkpoint)[0].parameters
    found.input("vision", config.vision)
    found.output("out", config.out, max(size, LEAST_SPACE))


REQUIRED = {
    "checkpoint": "name the run to export, for example --checkpoint runs/demo/mira",
    "out": "name the folder to write, for example --out runs/export",
}
COMMAND = commands.Command("export", main, ExportConfig, __doc__, flags=("checkpoint", "out"), required=REQUIRED, needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
