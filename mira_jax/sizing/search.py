"""Searches other meshes and settings for the same work, using only the estimate."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from mira_jax.models import remat
from mira_jax.models.remat import Remat
from mira_jax.models.sharding import MeshConfig
from mira_jax.recipes.base import Recipe
from mira_jax.sizing import flops
from mira_jax.sizing.chips import Topology
from mira_jax.sizing.estimate import Estimate, Estimator
from mira_jax.sizing.plan import Plan, abstract_mesh, make_plan
from mira_jax.sizing.roofline import Roofline, roofline
from mira_jax.train import TrainConfig

REMATS: tuple[Remat, ...] = (
    "block",
    ["heads"],
    ["query", "key", "value", "heads"],
    ["query", "key", "value", "heads", "output", "down"],
    ["query", "key", "value", "heads", "output", "gate", "up"],
    "products",
    "none",
)
"""Settings of `model.remat`, each of which keeps more than the one before it, for less computation."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    mesh: MeshConfig
    remat: Remat
    parts: int
    estimate: Estimate
    roofline: Roofline

    def apply(self, config: TrainConfig) -> TrainConfig:
        """The config with these settings."""
        return dataclasses.replace(
            config,
            mesh=self.mesh,
            model=dataclasses.replace(config.model, remat=self.remat),
            optimizer=dataclasses.replace(config.optimizer, accumulate=self.parts),
        )

    def tree(self) -> dict[str, Any]:
        """The settings as plain data."""
        return dataclasses.asdict(self)

    def settings(self) -> str:
        """The settings as command-line arguments."""
        axes = dataclasses.asdict(self.mesh)
        return " ".join(
            [f"--set mesh.{axis}={size}" for axis, size in axes.items() if size > 1 or axis == "fsdp"]
            + [f"--set model.remat={remat.text(self.remat)}", f"--set optimizer.accumulate={self.parts}"]
        )


def meshes(plan: Plan, topology: Topology) -> Iterator[MeshConfig]:
    """Every reasonable way to divide the work among all chips: heads are not split, and a chip has whole windows of a row."""
    model, chips = plan.model, topology.chips
    powers = [2**n for n in range(chips.bit_length()) if chips % 2**n == 0]
    for data, tensor, sequence in itertools.product(powers, powers, powers):
        fsdp = chips // (data * tensor * sequence)
        whole = model.kv_heads % tensor == 0 and plan.workload.row_length % sequence == 0
        near = plan.workload.row_length // sequence >= model.window
        if fsdp * data * tensor * sequence == chips and whole and (near or sequence == 1):
            yield MeshConfig(data=data, fsdp=fsdp, tensor=tensor, sequence=sequence)


def candidates(config: TrainConfig, recipe: Recipe, plan: Plan, topology: Topology, *, needed: float, efficiency: float) -> list[Candidate]:
    """Settings that fit according to the estimate, fastest first. The number of rows in a batch stays the same.

    `needed`: FLOPs that the step needs.
    """
    found = []
    rows = plan.workload.rows
    for kept in REMATS:
        changed = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=kept))
        planned = make_plan(changed, recipe, plan.workload, topology)
        estimator = Estimator(planned)
        computed = flops.done(planned.trace(), planned.kernel_flops)
        for parts, mesh in itertools.product([2**n for n in range(rows.bit_length()) if rows % 2**n == 0], meshes(plan, topology)):
            if (rows // parts) % (mesh.data * mesh.fsdp):
                continue
            guess = estimator.on(abstract_mesh(mesh, topology.chips), parts)
            if guess.memory.peak > topology.chip.hbm:
                continue
            line = roofline(
                topology, dataclasses.asdict(mesh), done=computed, needed=needed, tokens=plan.workload.tokens,
                hbm_bytes=guess.hbm_bytes, sent=guess.sent, efficiency=efficiency,
            )  # fmt: skip
            found.append(Candidate(mesh, kept, parts, guess, line))
    return sorted(found, key=lambda candidate: (candidate.roofline.seconds, candidate.parts))
