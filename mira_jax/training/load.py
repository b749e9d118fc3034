"""Reads a model: from a run's newest checkpoint, or from a Hugging Face folder."""

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
from mira_jax.training.checkpoint import latest_checkpoint, parameters_part, quiet_failure, reason, sound_checkpoint
from mira_jax.training.fingerprint import fingerprint
from mira_jax.training.layout import Layout
from mira_jax.training.state import Params, Skeleton, params_of, skeleton

MODEL = "model.json"
REWRITE = "put a copy back; a run that goes on writes it again"
ORIGIN = "huggingface"
"""Folder in a run that was imported: what its Hugging Face folder had beside the text model."""


def build_model(
    config: Gemma3Config,
    heads: tuple[str, ...],
    lora: Sequence[LoraConfig] = (),
    *,
    rngs: nnx.Rngs,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: str = "none",
) -> Gemma3 | Critic:
    """A policy, or with `heads` a critic, with each set of adapters in `lora`, the oldest first."""
    options = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype, "remat": remat}
    model = Critic(config, heads, **options) if heads else Gemma3(config, **options)
    for settings in lora:
        model = adapters.adapt(model, settings, rngs)
    return model


@dataclasses.dataclass(frozen=True)
class LoraRun:
    """What a run that trains adapters remembers of the model they belong to, whose numbers its checkpoints do not hold."""

    config: LoraConfig
    base: str
    """The folder of that model, a run or a Hugging Face folder, absolute."""
    relative: str
    """The same, seen from the run: where it is if both were moved together."""
    fingerprint: str
    """Of the base's weights."""


def write_model_json(folder: str | Path, config: Gemma3Config, heads: tuple[str, ...], lora: LoraRun | None = None) -> None:
    """What `load_model` needs to know beside the checkpoints."""
    tree = {"model": configs.to_tree(config), "heads": list(heads)}
    if lora:
        tree["lora"] = configs.to_tree(lora)
    write_atomically(Path(folder) / MODEL, to_json(tree, indent=1).encode())


def read_model_json(folder: str | Path) -> tuple[Gemma3Config, tuple[str, ...]]:
    """(sizes, heads) of a run. Raises UserError if the file is not as `write_model_json` writes it."""
    tree = _read_description(folder)
    try:
        return configs.build(Gemma3Config, tree["model"], source=str(Path(folder) / MODEL)), tuple(tree["heads"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{Path(folder) / MODEL}: not the description of a model: {error}; {REWRITE}") from None


def read_lora(folder: str | Path) -> LoraRun | None:
    """What a run that trains adapters remembers of its base; None for another run, or a Hugging Face folder."""
    path = Path(folder) / MODEL
    if not path.exists():
        return None
    tree = _read_description(folder).get("lora")
    return configs.build(LoraRun, tree, source=str(path)) if tree else None


def _read_description(folder: str | Path) -> dict[str, Any]:
    locate(Path(folder) / MODEL)
    return read_json(Path(folder) / MODEL, REWRITE)


def lora_run(folder: str | Path, config: LoraConfig, base: str | Path) -> LoraRun:
    """That of a run which starts in `folder`, or goes on there, maybe with its base in another place.

    Raises:
        UserError: `base` holds no model, or other weights than when the run began.
    """
    before, base, found = read_lora(folder), Path(base).absolute(), model_fingerprint(base)
    if before and found != before.fingerprint:
        raise UserError(
            f"init_from: {base} holds other weights than when the adapters in {folder} began; name those, or choose another out"
        )
    return LoraRun(before.config if before else config, str(base), os.path.relpath(base, Path(folder).absolute()), found)


def lora_base(folder: str | Path) -> Path:
    """The folder of the model that a run's adapters belong to.

    Raises:
        UserError: it is gone, or its weights are others than when the run began.
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


def _placeless(folder: Path) -> bytes:
    """A run's model.json without the places of the base, which may be moved."""
    tree = _read_description(folder)
    lora = {key: value for key, value in tree["lora"].items() if key not in ("base", "relative")}
    return to_json(tree | {"lora": lora}).encode()


def model_fingerprint(folder: str | Path) -> str:
    """Of the weights that `load_model` would read. Raises UserError if there is no model."""
    folder = _model_folder(folder).absolute()
    if (folder / MODEL).exists():
        checkpoint = latest_checkpoint(folder)
        part = checkpoint / parameters_part(checkpoint)
        files = [folder / MODEL, *(path for path in part.rglob("*") if path.is_file())]
        return fingerprint(folder, files, {folder / MODEL: _placeless(folder)} if read_lora(folder) else None)
    return fingerprint(folder, [folder / "config.json", *folder.glob("*.safetensors")])


def weights_identity(folder: str | Path) -> tuple[str, str]:
    """The fingerprint of a model's weights, and "" or, for a run that trains adapters, that of the model they belong to."""
    lora = read_lora(folder)
    return model_fingerprint(folder), lora.fingerprint if lora else ""


def load_model(
    folder: str | Path, *, dtype=jnp.float32, param_dtype=jnp.float32, remat: str = "none", layout: Layout | None = None
) -> tuple[Gemma3 | Critic, Gemma3Config]:
    """The model in a run's newest checkpoint, or in a Hugging Face folder, on one device or laid out as asked.

    A run's adapters stay adapters, in float32: the model computes what the training step computes.

    Raises:
        UserError: `folder` is neither, or what it holds does not fit together.
    """
    folder = _model_folder(folder)
    layout = layout or Layout()
    if not (folder / MODEL).exists():
        from mira_jax.models import huggingface

        sizes = huggingface.load_config(folder)
        bones = skeleton(lambda rngs: Gemma3(sizes, rngs=rngs, param_dtype=param_dtype))
        placed = bones.state(layout.of(bones.params))
        model = huggingface.load(folder, dtype=dtype, param_dtype=param_dtype, remat=remat, shardings=placed)
        return model, model.config
    config, heads = read_model_json(folder)
    options = {"dtype": dtype, "param_dtype": param_dtype, "remat": remat}
    bones = _bones(folder, **options)
    params = _load_params(folder, layout.abstract(bones.params))
    if not bones.frozen:
        return bones.merge(params), config
    base = params_of(load_model(lora_base(folder), layout=layout, **options)[0])
    frozen = adapters.below(base.get("trunk", base))
    return bones.merge(params, {"trunk": frozen} if heads else frozen), config


def lora_chain(folder: str | Path) -> tuple[tuple[Path, LoraConfig], ...]:
    """The runs that trained the adapters of a model, each with its settings, the oldest first; () if it has none.

    Raises UserError as `lora_base` does.
    """
    lora = read_lora(folder)
    return (*lora_chain(lora_base(folder)), (Path(folder), lora.config)) if lora else ()


def lora_configs(folder: str | Path) -> tuple[LoraConfig, ...]:
    """The settings in `lora_chain`."""
    return tuple(config for _, config in lora_chain(folder))


def load_adapters(folder: str | Path) -> Params:
    """What the newest checkpoint of a run that trains adapters holds: they, and a critic's heads."""
    return _load_params(folder, Layout().abstract(_bones(folder).params))


def _bones(folder: Path, **options) -> Skeleton:
    """Of the model in a run; what is in the run's own checkpoints counts as trained."""
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
            "put an undamaged copy back"
        ) from error
    weights.require_finite_arrays(params, path)
    return params


def load_config(folder: str | Path) -> tuple[Gemma3Config, tuple[str, ...]]:
    """(sizes, heads) of the model that `load_model` would read, without reading its numbers.

    Raises:
        UserError: there is no model, or a Hugging Face folder whose tensors do not fit its config.
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
    """What side tables and trajectories call this model: the folder, and the step if it is a run."""
    folder = Path(folder)
    return f"{folder}@{latest_checkpoint(folder).name}" if (folder / MODEL).exists() else str(folder)


def _model_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of a model")
    if not (folder / MODEL).exists() and not (folder / "config.json").exists():
        raise UserError(f"{folder}: no model here; expected a run of mira_jax.train ({MODEL}) or a Hugging Face folder (config.json)")
    return folder
