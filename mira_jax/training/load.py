"""Loads a model from a run's newest checkpoint or from a Hugging Face folder."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from orbax.checkpoint import v1 as ocp

from mira_jax import config as configs
from mira_jax.errors import UserError
from mira_jax.files import read_json, to_json, write_atomically
from mira_jax.model_files import locate
from mira_jax.models import lora as adapters
from mira_jax.models import weights
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.heads import Critic
from mira_jax.models.lora import LoraConfig
from mira_jax.models.remat import Remat
from mira_jax.training.checkpoint import latest_checkpoint, parameters_part, quiet_failure, reason, sound_checkpoint
from mira_jax.training.fingerprint import fingerprint
from mira_jax.training.layout import Layout
from mira_jax.training.state import Params, Skeleton, params_of, skeleton

MODEL = "model.json"
REWRITE = "restore a copy; a resumed run writes it again"
ORIGIN = "huggingface"
"""Folder in an imported run with the other files of its Hugging Face folder."""


def build_model(
    config: Gemma3Config,
    heads: tuple[str, ...],
    lora: Sequence[LoraConfig] = (),
    *,
    rngs: nnx.Rngs,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: Remat = "none",
) -> Gemma3 | Critic:
    """Builds a policy, or with `heads` a critic, with each set of adapters in `lora`, oldest first."""
    options = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype, "remat": remat}
    model = Critic(config, heads, **options) if heads else Gemma3(config, **options)
    for settings in lora:
        model = adapters.adapt(model, settings, rngs)
    return model


@dataclasses.dataclass(frozen=True)
class LoraRun:
    """The record that a run with adapters keeps of its base model, whose parameters are not in its checkpoints."""

    config: LoraConfig
    base: str
    """The absolute path of the base model's folder, a run or a Hugging Face folder."""
    relative: str
    """The path relative to the run, which remains valid if both are moved together."""
    fingerprint: str
    """Fingerprint of the base model's weights."""


def write_model_json(folder: str | Path, config: Gemma3Config, heads: tuple[str, ...], lora: LoraRun | None = None) -> None:
    """Writes the data that `load_model` needs in addition to the checkpoints."""
    tree = {"model": configs.to_tree(config), "heads": list(heads)}
    if lora:
        tree["lora"] = configs.to_tree(lora)
    write_atomically(Path(folder) / MODEL, to_json(tree, indent=1).encode())


def read_model_json(folder: str | Path) -> tuple[Gemma3Config, tuple[str, ...]]:
    """(sizes, heads) of a run. Raises UserError if the file does not have the format of `write_model_json`."""
    tree = _read_description(folder)
    try:
        return configs.build(Gemma3Config, tree["model"], source=str(Path(folder) / MODEL)), tuple(tree["heads"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{Path(folder) / MODEL}: not the description of a model: {error}; {REWRITE}") from None


def read_lora(folder: str | Path) -> LoraRun | None:
    """The record of the base model in a run with adapters. None for other runs and for Hugging Face folders."""
    path = Path(folder) / MODEL
    if not path.exists():
        return None
    tree = _read_description(folder).get("lora")
    return configs.build(LoraRun, tree, source=str(path)) if tree else None


def _read_description(folder: str | Path) -> dict[str, Any]:
    locate(Path(folder) / MODEL)
    return read_json(Path(folder) / MODEL, REWRITE)


def lora_run(folder: str | Path, config: LoraConfig, base: str | Path) -> LoraRun:
    """The record for a run that starts or resumes in `folder`. The base may have been moved.

    Raises:
        UserError: `base` contains no model, or its weights differ from those at the start of the run.
    """
    before, base, found = read_lora(folder), Path(base).absolute(), model_fingerprint(base)
    if before and found != before.fingerprint:
        raise UserError(
            f"init_from: {base} holds other weights than those that the adapters in {folder} started from; name those, or choose "
            "another out"
        )
    return LoraRun(before.config if before else config, str(base), os.path.relpath(base, Path(folder).absolute()), found)


def lora_base(folder: str | Path) -> Path:
    """The folder of the base model of a run with adapters.

    Raises:
        UserError: it does not exist, or its weights differ from those at the start of the run.
    """
    lora = read_lora(folder)
    places = [Path(lora.base), Path(os.path.normpath(Path(folder).absolute() / lora.relative))]
    found = [place for place in places if place.is_dir()]
    if not found:
        raise UserError(f"{folder}: holds adapters of {lora.base}, which is gone; put that model back there, or at {places[1]}")
    for place in found:
        if model_fingerprint(place) == lora.fingerprint:
            return place
    raise UserError(
        f"{folder}: holds adapters of {found[0]}, whose weights are not those that they were trained with; put the old ones back there"
    )


def _without_paths(folder: Path) -> bytes:
    """The content of a run's model.json without the paths of the base, which may be moved."""
    tree = _read_description(folder)
    lora = {key: value for key, value in tree["lora"].items() if key not in ("base", "relative")}
    return to_json(tree | {"lora": lora}).encode()


def model_fingerprint(folder: str | Path) -> str:
    """The fingerprint of the weights that `load_model` would read. Raises UserError if there is no model."""
    folder = _model_folder(folder).absolute()
    if (folder / MODEL).exists():
        checkpoint = latest_checkpoint(folder)
        part = checkpoint / parameters_part(checkpoint)
        files = [folder / MODEL, *(path for path in part.rglob("*") if path.is_file())]
        return fingerprint(folder, files, {folder / MODEL: _without_paths(folder)} if read_lora(folder) else None)
    return fingerprint(folder, [folder / "config.json", *folder.glob("*.safetensors")])


def weights_identity(folder: str | Path) -> tuple[str, str]:
    """The fingerprint of a model's weights, and that of its base model for a run with adapters, otherwise ""."""
    lora = read_lora(folder)
    return model_fingerprint(folder), lora.fingerprint if lora else ""


def load_model(
    folder: str | Path, *, dtype=jnp.float32, param_dtype=jnp.float32, remat: Remat = "none", layout: Layout | None = None
) -> tuple[Gemma3 | Critic, Gemma3Config]:
    """The model in a run's newest checkpoint or in a Hugging Face folder, on one device or with the requested layout.

    The adapters of a run are not merged and stay in float32, so that the model computes the same as the training step.

    Raises:
        UserError: `folder` is neither, or its content is inconsistent.
    """
    folder = _model_folder(folder)
    layout = layout or Layout()
    if not (folder / MODEL).exists():
        from mira_jax.models import huggingface

        sizes = huggingface.load_config(folder)
        model_skeleton = skeleton(lambda rngs: Gemma3(sizes, rngs=rngs, param_dtype=param_dtype))
        placed = model_skeleton.state(layout.of(model_skeleton.params))
        model = huggingface.load(folder, dtype=dtype, param_dtype=param_dtype, remat=remat, shardings=placed)
        return model, model.config
    config, heads = read_model_json(folder)
    options = {"dtype": dtype, "param_dtype": param_dtype, "remat": remat}
    model_skeleton = _skeleton_of(folder, **options)
    params = _load_params(folder, layout.abstract(model_skeleton.params))
    if not model_skeleton.frozen:
        return model_skeleton.merge(params), config
    base = params_of(load_model(lora_base(folder), layout=layout, **options)[0])
    frozen = adapters.below(base.get("trunk", base))
    return model_skeleton.merge(params, {"trunk": frozen} if heads else frozen), config


def lora_chain(folder: str | Path) -> tuple[tuple[Path, LoraConfig], ...]:
    """The runs that trained the adapters of a model, each with its settings, oldest first. () if it has no adapters.

    Raises the same UserErrors as `lora_base`.
    """
    lora = read_lora(folder)
    return (*lora_chain(lora_base(folder)), (Path(folder), lora.config)) if lora else ()


def lora_configs(folder: str | Path) -> tuple[LoraConfig, ...]:
    """The settings in `lora_chain`."""
    return tuple(config for _, config in lora_chain(folder))


def load_adapters(folder: str | Path) -> Params:
    """The content of the newest checkpoint of a run with adapters: the adapters, and the heads of a critic."""
    return _load_params(folder, Layout().abstract(_skeleton_of(folder).params))


def _skeleton_of(folder: Path, **options) -> Skeleton:
    """The skeleton of the model in a run. The parameters in the run's own checkpoints count as trained."""
    config, heads = read_model_json(folder)
    lora = lora_configs(folder)
    return skeleton(lambda rngs: build_model(config, heads, lora, rngs=rngs, **options), adapters.trained if lora else None)


def _load_params(folder: str | Path, abstract: Params) -> Params:
    path = sound_checkpoint(folder)
    try:
        with quiet_failure():
            params = ocp.load(path, abstract, checkpointable_name=parameters_part(path))
    except Exception as error:
        raise UserError(
            f"{path}: the checkpoint is damaged or does not hold the model that {Path(folder) / MODEL} describes: {reason(error)}; "
            "restore an undamaged copy"
        ) from error
    weights.require_finite_arrays(params, path)
    return params


def load_config(folder: str | Path) -> tuple[Gemma3Config, tuple[str, ...]]:
    """(sizes, heads) of the model that `load_model` would read, without reading its parameters.

    Raises:
        UserError: there is no model, or the tensors of a Hugging Face folder do not match its config.
    """
    folder = _model_folder(folder)
    if (folder / MODEL).exists():
        latest_checkpoint(folder)
        if read_lora(folder):
            lora_base(folder)
        return read_model_json(folder)
    from mira_jax.models import huggingface

    return huggingface.check(folder), ()


def checkpoint_id(folder: str | Path) -> str:
    """The name of this model in side tables and trajectories: the folder, and the step if it is a run."""
    folder = Path(folder)
    return f"{folder}@{latest_checkpoint(folder).name}" if (folder / MODEL).exists() else str(folder)


def _model_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of a model")
    if not (folder / MODEL).exists() and not (folder / "config.json").exists():
        raise UserError(f"{folder}: no model here; expected a run of mira_jax.train ({MODEL}) or a Hugging Face folder (config.json)")
    return folder
