"""Computes the memory, traffic and minimum time of a training step on given accelerators, without access to them.

    mira size --config configs/12b/actor.yaml --topology v5p:4x4x4 --preset 12b

For TPUs (v5p, v5e, v6e) it compiles the real step with the compiler of libtpu, which takes minutes. For GPUs (h200:8) it
estimates. It reads no data, tokenizer or weights: a row contains as many steps of `prompt_tokens` and `response_tokens` as
fit. If the step does not fit in memory, or with search=true, it searches for the fastest settings that do.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import jax
from msgspec import Meta

from mira_jax import commands
from mira_jax.config import Count
from mira_jax.errors import UserError
from mira_jax.models.config import Preset
from mira_jax.models.precision import use_precision
from mira_jax.needs import Needs
from mira_jax.recipes import make_recipe
from mira_jax.sizing import flops, report
from mira_jax.sizing.chips import Topology, parse_topology
from mira_jax.sizing.compiled import compile_step, tpu_devices
from mira_jax.sizing.estimate import Estimator
from mira_jax.sizing.plan import Plan, abstract_mesh, make_plan, make_workload, require_shareable
from mira_jax.sizing.search import candidates
from mira_jax.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class SizeConfig(TrainConfig):
    """A training config with additional keys."""

    topology: str = ""
    """KIND:SHAPE, for example v5p:4x4x4, v5e:4x4, v6e:16x16 or h200:8. (A slice sold as v5p-128 has 64 chips.)"""
    preset: Preset | None = None
    """The model size to use instead of `init_from` and `model.sizes`."""
    prompt_tokens: Count = 2000
    """Prompt tokens of each step."""
    response_tokens: Count = 40
    """Response tokens of each step, end token included. A critic's rows contain no responses."""
    compile: bool = True
    """False: only estimate, also for TPUs."""
    search: bool = False
    """Also searches other settings of mesh, rematerialisation and accumulation if the step fits, as if it does not."""
    efficiency: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Assumed share of the chips' peak rate that matrix products reach."""
    json: str | None = None
    """A file to write all figures to, as JSON."""


def main(config: SizeConfig) -> int:
    """Prints the table. Returns 1 if the step does not fit and no other settings fit."""
    jax.config.update("jax_platforms", "cpu")
    use_precision(config.model.precision)
    topology = parse_topology(config.topology)
    if config.json and not Path(config.json).absolute().parent.is_dir():
        raise UserError(f"json: there is no folder {Path(config.json).parent} to write in")
    if compiles := config.compile and topology.chip.tpu:
        tpu_devices(topology)
    if config.preset:
        config = dataclasses.replace(config, init_from=None, model=dataclasses.replace(config.model, preset=config.preset, sizes={}))
    recipe = make_recipe(config.recipe)
    data, parts = config.data, config.optimizer.accumulate
    workload = make_workload(recipe, data.rows, parts, data.row_length, config.prompt_tokens, config.response_tokens)
    plan = make_plan(config, recipe, workload, topology.chip.tpu)
    require_shareable(abstract_mesh(config.mesh, topology.chips), workload)

    first = size(config, plan, topology, compiles)
    print(first.text())
    sizings, found = [first], []
    if config.search or not first.fits:
        found = candidates(config, recipe, plan, topology, needed=first.needed, efficiency=config.efficiency)
        print("\n" + report.others(found))
        if found and compiles:
            other = found[0].apply(config)
            workload = dataclasses.replace(workload, parts=other.optimizer.accumulate)
            sizings.append(size(other, make_plan(other, recipe, workload, topology.chip.tpu), topology, compiles))
            print("\nthe first of them, compiled\n" + sizings[-1].text())
    if config.json:
        tree = {"sizings": [sizing.tree() for sizing in sizings], "candidates": [candidate.tree() for candidate in found]}
        Path(config.json).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    return 0 if sizings[-1].fits or found else 1


def size(config: SizeConfig, plan: Plan, topology: Topology, compiles: bool) -> report.Sizing:
    """Sizes one plan on the mesh of its config."""
    mesh = abstract_mesh(config.mesh, topology.chips)
    return report.Sizing(
        plan,
        topology,
        dict(mesh.shape),
        report.optimizer_text(config.optimizer),
        Estimator(plan).on(mesh),
        compile_step(plan, topology, config.mesh) if compiles else None,
        flops.done(plan.trace()),
        config.efficiency,
    )


def needs(config: SizeConfig, found: Needs) -> None:
    with found.attempt("topology"):
        parse_topology(config.topology)
    with found.attempt("recipe"):
        make_recipe(config.recipe)
    if not config.preset:
        found.input("init_from", config.init_from)


COMMAND = commands.Command("size", main, SizeConfig, __doc__, flags=("topology", "preset", "json"), needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
