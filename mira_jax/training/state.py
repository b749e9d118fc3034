"""What training changes: the parameters and the optimizer's state, as plain trees of arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

Params = Any
"""Nested dicts of arrays, by the names of the model's attributes."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    params: Params
    optimizer: optax.OptState
    step: jax.Array
    """int32 scalar: updates done."""


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A model without its numbers: the one abstract tree that drives init, restore and every step."""

    graph: nnx.GraphDef
    structure: jax.tree_util.PyTreeDef
    params: Params
    """Those that are trained, of `jax.ShapeDtypeStruct`."""
    frozen: Params = dataclasses.field(default_factory=dict)
    """The others."""

    def state(self, params: Params, frozen: Params | None = None) -> nnx.State:
        """Trees like `params` and `frozen` as the model's NNX state."""
        return jax.tree.unflatten(self.structure, jax.tree.leaves(_union(params, frozen or {})))

    def merge(self, params: Params, frozen: Params | None = None) -> nnx.Module:
        """The model with these parameters."""
        return nnx.merge(self.graph, self.state(params, frozen))

    def split(self, parameters: Params) -> tuple[Params, Params]:
        """(trained, frozen) of all the model's parameters, or of anything with a leaf for each."""
        return _without(parameters, self.frozen), _without(parameters, self.params)

    @property
    def parameters(self) -> Params:
        """All of them, of `jax.ShapeDtypeStruct`."""
        return _union(self.params, self.frozen)


def skeleton(build: Callable[[nnx.Rngs], nnx.Module], trained: Callable[[tuple[str | int, ...]], bool] | None = None) -> Skeleton:
    """Traces `build` without computing anything. `trained` tells by a parameter's path whether it is; default: all are."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param)
    params, frozen = params_of(state), {}
    if trained is not None:
        params, frozen = _partition(params, trained)
    return Skeleton(graph, jax.tree.structure(state), params, frozen)


def params_of(model: nnx.Module | nnx.State) -> Params:
    """The parameters of a model as nested dicts."""
    state = model if isinstance(model, nnx.State) else nnx.split(model, nnx.Param)[1]
    return jax.tree.map(lambda leaf: leaf, nnx.to_pure_dict(state))


def init_params(build: Callable[[nnx.Rngs], nnx.Module], seed: int, given: Params | None = None, shardings: Params | None = None) -> Params:
    """Fresh parameters, computed as one program; subtrees that `given` has are taken from there and never computed."""
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

    With `shardings` every leaf is put where it stays: were some left to the default device, the second update would
    be compiled anew.
    """
    out_shardings = None if shardings is None else shardings.optimizer
    optimizer_state = jax.jit(optimizer.init, out_shardings=out_shardings, compiler_options=_quick_compile())(params)
    state = TrainState(params, optimizer_state, jnp.zeros((), jnp.int32))
    return state if shardings is None else jax.device_put(state, shardings)


def all_finite(state: TrainState) -> bool:
    """Whether every number of the parameters and of the optimizer is finite; waits for the device."""
    check = jax.jit(_all_finite, out_shardings=state.step.sharding)
    return bool(jax.device_get(check(state)))


def _all_finite(state: TrainState) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def abstract_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes and dtypes of `init_state`."""
    return TrainState(params, jax.eval_shape(optimizer.init, params), jax.ShapeDtypeStruct((), jnp.int32))


def _quick_compile() -> dict[str, int] | None:
    """For programs that run once. On CPU, compiling the random draws with full optimisation takes longer than all else."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def _without(tree: Params, given: Params) -> Params:
    """`tree` less the top-level and nested subtrees that `given` has."""
    if not isinstance(tree, dict):
        return tree
    kept = {}
    for name, child in tree.items():
        if name not in given:
            kept[name] = child
        elif isinstance(child, dict) and (rest := _without(child, given[name])):
            kept[name] = rest
    return kept


def _partition(tree: Params, chosen: Callable[[tuple[str | int, ...]], bool], path: tuple[str | int, ...] = ()) -> tuple[Params, Params]:
    """(the leaves whose path is chosen, the others), each without empty branches."""
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
