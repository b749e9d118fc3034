"""Computes the memory, traffic and minimum time of training, scoring or serving on given accelerators, without access to them.

    mira size --config configs/12b/actor.yaml --topology v5p:4x4x4 --preset 12b
    mira size --config configs/lora/actor.yaml --topology h100:1 --preset 12b --what serve --set serve.dtype=bfloat16

It compiles the real programs with the compiler of the chips, which takes minutes: that of libtpu for TPUs (v5p, v5e, v6e), and that
of JAX's CUDA plugin for GPUs (a100, h100, h200, b200). For other GPUs it estimates. It reads no data, tokenizer or weights: a row
contains as many steps of `prompt_tokens` and `response_tokens` as fit. If a training step does not fit in memory, or with
search=true, it searches for the fastest settings that do. The programs of `mira score` and `mira serve` run on one chip.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import jax
from msgspec import Meta

from mira_jax import commands
from mira_jax.config import Count
from mira_jax.errors import UserError
from mira_jax.models.config import Preset
from mira_jax.models.precision import use_precision
from mira_jax.needs import Needs
from mira_jax.recipes import make_recipe
from mira_jax.recipes.base import Recipe
from mira_jax.sizing import flops, report
from mira_jax.sizing.chips import Topology, parse_topology
from mira_jax.sizing.compiled import compile_inference, compile_step
from mira_jax.sizing.devices import absent_devices, compiles
from mira_jax.sizing.estimate import Estimator
from mira_jax.sizing.inference import ScoreSizes, ServeSizes, What, make_scoring, make_serving
from mira_jax.sizing.plan import Plan, abstract_mesh, make_plan, make_workload, require_shareable
from mira_jax.sizing.search import candidates
from mira_jax.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class SizeConfig(TrainConfig):
    """A training config with additional keys."""

    topology: str = ""
    """KIND:SHAPE, for example v5p:4x4x4, v5e:4x4, v6e:16x16, h200:8, or h200:2x8 for two hosts of 8. (A slice sold as v5p-128 has 64
    chips.)"""
    what: What = "train"
    """What to size with this model: a training step, a batch of `mira score`, or the programs of `mira serve`."""
    score: ScoreSizes = dataclasses.field(default_factory=ScoreSizes)
    """The keys of `mira score`, for what=score."""
    serve: ServeSizes = dataclasses.field(default_factory=ServeSizes)
    """The keys of `mira serve`, for what=serve."""
    preset: Preset | None = None
    """The model size to use instead of `init_from` and `model.sizes`."""
    prompt_tokens: Count = 2000
    """Prompt tokens of each step."""
    response_tokens: Count = 40
    """Response tokens of each step, end token included. A critic's rows contain no responses."""
    compile: bool = True
    """False: only estimate."""
    search: bool = False
    """Also searches other settings of mesh, rematerialisation and accumulation if the step fits, as if it does not."""
    efficiency: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Assumed share of the chips' peak rate that matrix products reach."""
    json: str | None = None
    """A file to write all figures to, as JSON."""


def main(config: SizeConfig) -> int:
    """Prints the table. Returns 1 if it does not fit and no other settings fit."""
    jax.config.update("jax_platforms", "cpu")
    use_precision(config.model.precision)
    topology = parse_topology(config.topology)
    if config.json and not Path(config.json).absolute().parent.is_dir():
        raise UserError(f"json: there is no folder {Path(config.json).parent} to write in")
    if compiling := config.compile and compiles(topology):
        absent_devices(topology)
    if config.preset:
        config = dataclasses.replace(config, init_from=None, model=dataclasses.replace(config.model, preset=config.preset, sizes={}))
    recipe = make_recipe(config.recipe)
    if config.what != "train":
        return size_inference(config, recipe, topology, compiling)
    data, parts = config.data, config.optimizer.accumulate
    workload = make_workload(recipe, data.rows, parts, data.row_length, config.prompt_tokens, config.response_tokens)
    plan = make_plan(config, recipe, workload, topology)
    require_shareable(abstract_mesh(config.mesh, topology.chips), workload)

    first = size(config, plan, topology, compiling)
    print(first.text())
    sizings, found = [first], []
    if config.search or not first.fits:
        found = candidates(config, recipe, plan, topology, needed=first.needed, efficiency=config.efficiency)
        print("\n" + report.others(found))
        if found and compiling:
            other = found[0].apply(config)
            workload = dataclasses.replace(workload, parts=other.optimizer.accumulate)
            sizings.append(size(other, make_plan(other, recipe, workload, topology), topology, compiling))
            print("\nthe first of them, compiled\n" + sizings[-1].text())
    write_json(config, {"sizings": [sizing.tree() for sizing in sizings], "candidates": [candidate.tree() for candidate in found]})
    return 0 if sizings[-1].fits or found else 1


def size_inference(config: SizeConfig, recipe: Recipe, topology: Topology, compiling: bool) -> int:
    """`main` for scoring and serving."""
    if config.what == "score":
        plan = make_scoring(config, recipe, config.score, config.prompt_tokens, config.response_tokens, topology)
    else:
        plan = make_serving(config, recipe, config.serve, topology)
    compiled = compile_inference(plan, topology) if compiling else ()
    sizing = report.InferenceSizing(plan, topology, compiled, config.efficiency)
    print(sizing.text())
    write_json(config, {"sizings": [sizing.tree()], "candidates": []})
    return 0 if sizing.fits else 1


def write_json(config: SizeConfig, tree: dict[str, Any]) -> None:
    if config.json:
        Path(config.json).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def size(config: SizeConfig, plan: Plan, topology: Topology, compiling: bool) -> report.Sizing:
    """Sizes one plan on the mesh of its config."""
    mesh = abstract_mesh(config.mesh, topology.chips)
    return report.Sizing(
        plan,
        topology,
        dict(mesh.shape),
        report.optimizer_text(config.optimizer),
        Estimator(plan).on(mesh),
        compile_step(plan, topology, config.mesh) if compiling else None,
        flops.done(plan.trace(), plan.kernel_flops),
        config.efficiency,
    )


def needs(config: SizeConfig, found: Needs) -> None:
    with found.attempt("topology"):
        parse_topology(config.topology)
    with found.attempt("recipe"):
        make_recipe(config.recipe)
    if not config.preset:
        found.input("init_from", config.init_from)


COMMAND = commands.Command("size", main, SizeConfig, __doc__, flags=("topology", "preset", "what", "json"), needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
