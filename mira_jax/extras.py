"""Optional dependencies, and the message when they are missing."""

import importlib.util
from pathlib import Path

from mira_jax.errors import UserError

MODULES = {
    "train": ("absl", "flax", "grain", "h11", "jax", "jaxtyping", "optax", "orbax.checkpoint", "prometheus_client", "tensorboardX"),
    "openenv": ("openenv",),
    "ray": ("ray",),
    "miniwob": ("miniwob",),
}
"""Extra in pyproject.toml to the modules that it installs."""


def require(extra: str) -> None:
    """Raises UserError if one of the extra's modules is not installed. Imports none of them."""
    missing = [name for name in MODULES.get(extra, ()) if not _is_installed(name)]
    if missing:
        raise UserError(f"{', '.join(missing)}: not installed; {install(extra)}")


def install(extra: str) -> str:
    """The command that adds an extra to the installed package."""
    return f"pip install 'mira-jax[{extra}]'"


def refuse_foreign_rollouts() -> None:
    """Raises UserError if the package `rollouts` is not ours. An unrelated distribution of that name overwrites it when installed."""
    spec = importlib.util.find_spec("rollouts")
    if spec is None:
        return
    own = 'DISTRIBUTION = "mira-jax"'
    if spec.origin is None or own not in Path(spec.origin).read_text(encoding="utf-8", errors="replace"):
        place = next(iter(spec.submodule_search_locations or ()), "rollouts")
        raise UserError(
            f"{place}: an unrelated distribution named rollouts was installed over this package: pip uninstall rollouts, then install "
            "mira-jax again with pip install --force-reinstall --no-deps"
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
