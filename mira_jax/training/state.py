"""The state that training changes: parameters and optimizer state, as plain trees of arrays."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mira_jax.models.gemma3 import unstack

Params = Any
"""Nested dicts of arrays, by the attribute names of the model."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    params: Params
    optimizer: optax.OptState
    step: jax.Array
    """int32 scalar: number of updates done."""


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A model without parameter values: the abstract tree used for initialisation, restore and every step."""

    graph: nnx.GraphDef
    structure: jax.tree_util.PyTreeDef
    params: Params
    """The trained parameters, as `jax.ShapeDtypeStruct`."""
    frozen: Params = dataclasses.field(default_factory=dict)
    """The frozen parameters."""
    unrolled: bool = False
    """Whether the model and `frozen` have no stacked layers. `params` has them in any case, as checkpoints do."""

    def state(self, params: Params, frozen: Params | None = None) -> nnx.State:
        """Converts trees with the structure of `params` and `frozen` to the model's NNX state."""
        if self.unrolled:
            params = _apart(params, lambda stack: [jnp.squeeze(one, 0) for one in jax.lax.split(stack, [1] * stack.shape[0])])
        return jax.tree.unflatten(self.structure, jax.tree.leaves(_union(params, frozen or {})))

    def merge(self, params: Params, frozen: Params | None = None) -> nnx.Module:
        """The model with these parameters."""
        return nnx.merge(self.graph, self.state(params, frozen))

    def split(self, parameters: Params) -> tuple[Params, Params]:
        """(trained, frozen) of all parameters of the model, with its layers stacked. If it is unrolled, frozen stacks are deleted."""
        frozen = _without(parameters, self.params)
        return _without(parameters, frozen), _apart(frozen, _consumed) if self.unrolled else frozen

    @property
    def parameters(self) -> Params:
        """All parameters, as `jax.ShapeDtypeStruct`."""
        return _union(self.params, self.frozen)


Build = Callable[[nnx.Rngs], nnx.Module]


def skeleton(build: Build, trained: Callable[[tuple[str | int, ...]], bool] | None = None, unrolled: Build | None = None) -> Skeleton:
    """Traces the construction of a model without computing anything.

    Args:
        trained: decides by path whether a parameter is trained. Default: all are.
        unrolled: builds the same model without stacked layers, which then computes. Needs `trained`: see `Skeleton.unrolled`.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param)
    if trained is None:
        return Skeleton(graph, jax.tree.structure(state), params_of(state))
    params, frozen = _partition(params_of(state), trained)
    if unrolled is not None:
        graph, state = nnx.split(nnx.eval_shape(lambda: unrolled(nnx.Rngs(0))), nnx.Param)
        _, frozen = _partition(params_of(state), trained)
    return Skeleton(graph, jax.tree.structure(state), params, frozen, unrolled is not None)


def params_of(model: nnx.Module | nnx.State) -> Params:
    """The parameters of a model as nested dicts."""
    state = model if isinstance(model, nnx.State) else nnx.split(model, nnx.Param)[1]
    return jax.tree.map(lambda leaf: leaf, nnx.to_pure_dict(state))


def init_params(build: Callable[[nnx.Rngs], nnx.Module], seed: int, given: Params | None = None, shardings: Params | None = None) -> Params:
    """Initialises parameters in one compiled program. Subtrees in `given` are used as they are and not computed."""
    given = given or {}

    def init() -> Params:
        return _without(params_of(build(nnx.Rngs(seed))), given)

    missing = jax.eval_shape(init)
    if not jax.tree.leaves(missing):
        return given
    out_shardings = None if shardings is None else _without(shardings, given)
    return _union(jax.jit(init, out_shardings=out_shardings, compiler_options=_quick_compile())(), given)


def init_state(params: Params, optimizer: optax.GradientTransformation, shardings: TrainState | None = None) -> TrainState:
    """The state before the first update.

    With `shardings`, every leaf is placed in its final location. If some were left on the default device, the second update
    would be recompiled.
    """
    out_shardings = None if shardings is None else shardings.optimizer
    optimizer_state = jax.jit(optimizer.init, out_shardings=out_shardings, compiler_options=_quick_compile())(params)
    state = TrainState(params, optimizer_state, jnp.zeros((), jnp.int32))
    return state if shardings is None else jax.device_put(state, shardings)


def all_finite(state: TrainState) -> bool:
    """Whether all values of the parameters and the optimizer state are finite. Waits for the device."""
    check = jax.jit(_all_finite, out_shardings=state.step.sharding)
    return bool(jax.device_get(check(state)))


def _all_finite(state: TrainState) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def abstract_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The shapes and dtypes of `init_state`."""
    return TrainState(params, jax.eval_shape(optimizer.init, params), jax.ShapeDtypeStruct((), jnp.int32))


def _quick_compile() -> dict[str, int] | None:
    """Compiler options for programs that run once. On CPU, compiling the random initialisation with full optimisation takes
    longer than everything else."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def _without(tree: Params, given: Params) -> Params:
    """`tree` without the top-level and nested subtrees in `given`."""
    if not isinstance(tree, dict):
        return tree
    kept = {}
    for name, child in tree.items():
        if name not in given:
            kept[name] = child
        elif isinstance(child, dict) and (rest := _without(child, given[name])):
            kept[name] = rest
    return kept


def _apart(tree: Params, slices: Callable[[jax.Array], Sequence[jax.Array]]) -> Params:
    """The parameters of a model without stacked layers, from those of the same model with them: `groups`, with an entry for each layer of a
    group, become entries of `tail`."""
    if "groups" not in tree:
        return {name: _apart(child, slices) if isinstance(child, dict) else child for name, child in tree.items()}
    layers: Params = {}
    period = len(tree["groups"])
    for slot, block in tree["groups"].items():
        leaves, structure = jax.tree.flatten(block)
        for group, own in enumerate(zip(*map(slices, leaves), strict=True)):
            layers[group * period + slot] = jax.tree.unflatten(structure, own)
    tail = {len(layers) + place: block for place, block in tree.get("tail", {}).items()}
    return {name: child for name, child in tree.items() if name != "groups"} | {"tail": layers | tail}


def _consumed(stack: jax.Array) -> tuple[jax.Array, ...]:
    """The slices of a stack, which is deleted, so that memory never holds all stacks and all slices."""
    apart = unstack(stack)
    stack.delete()
    return apart


def _partition(tree: Params, chosen: Callable[[tuple[str | int, ...]], bool], path: tuple[str | int, ...] = ()) -> tuple[Params, Params]:
    """(leaves whose path is chosen, other leaves), each without empty branches."""
    yes, no = {}, {}
    for name, child in tree.items():
        if isinstance(child, dict):
            for part, into in zip(_partition(child, chosen, (*path, name)), (yes, no), strict=True):
                if part:
                    into[name] = part
        else:
            (yes if chosen((*path, name)) else no)[name] = child
    return yes, no


def _union(tree: Params, given: Params) -> Params:
    merged = dict(tree)
    for name, child in given.items():
        merged[name] = _union(tree[name], child) if name in tree and isinstance(child, dict) else child
    return merged
