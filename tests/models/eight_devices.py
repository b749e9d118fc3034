"""Losses and gradients on a mesh against those of one device. Run with eight simulated devices; prints JSON."""

import json
import math
import re
import sys
import tempfile
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.data.pipeline import Batches
from mira_jax.models import attention, sequence
from mira_jax.models.config import GLOBAL, LOCAL, Gemma3Config
from mira_jax.models.gemma3 import Gemma3, use_kernels
from mira_jax.models.heads import Critic
from mira_jax.models.kernels.choose import Kernel
from mira_jax.models.sharding import MeshConfig
from mira_jax.recipes.critic import CriticRecipe
from mira_jax.recipes.objectives.mira import Mira
from mira_jax.recipes.objectives.sft import SFT
from mira_jax.training.checkpoint import Checkpoints
from mira_jax.training.layout import make_layout
from mira_jax.training.state import TrainState, init_params, params_of, skeleton

ROWS, LENGTH, VOCABULARY, STEPS, RESPONSES = 8, 64, 64, 3, 16
CONFIG = Gemma3Config(VOCABULARY, 16, 5, 8, 2, 8, 32, window=5, layer_types=(LOCAL, GLOBAL) * 2 + (LOCAL,), scan_layers=True)
MESHES = {
    "data": MeshConfig(data=8, fsdp=1),
    "fsdp": MeshConfig(fsdp=8),
    "tensor": MeshConfig(fsdp=1, tensor=8),
    "sequence": MeshConfig(fsdp=1, sequence=8),
    "data x fsdp x tensor": MeshConfig(data=2, fsdp=2, tensor=2),
    "fsdp x sequence": MeshConfig(fsdp=2, sequence=4),
    "fsdp x tensor x sequence": MeshConfig(fsdp=2, tensor=2, sequence=2),
}


def packed_batch(draw: np.random.Generator) -> dict[str, np.ndarray]:
    """As `mira_jax.data.packing` makes them: in each row `STEPS` segments of random lengths, the last short of the end."""
    B, T, S, R = ROWS, LENGTH, STEPS, RESPONSES
    batch = {name: np.zeros((B, T), np.int32) for name in ("tokens", "segment_ids", "positions")}
    batch |= {name: np.zeros((B, R), np.int32) for name in ("response_index", "response_targets", "response_segment")}
    batch |= {"response_mask": np.zeros((B, R), np.float32), "last_prompt_index": np.zeros((B, S), np.int32)}
    batch["step_mask"] = np.ones((B, S), np.float32)
    for b in range(B):
        t = r = 0
        for s, end in enumerate([*np.sort(draw.choice(np.arange(8, T - 8), S - 1, replace=False)), T - int(draw.integers(1, 8))]):
            length = int(end) - t
            answer = min(3, length - 1, R - r)
            batch["tokens"][b, t:end] = draw.integers(1, VOCABULARY, length)
            batch["segment_ids"][b, t:end] = s + 1
            batch["positions"][b, t:end] = np.arange(length)
            batch["response_index"][b, r : r + answer] = np.arange(end - answer, end)
            batch["response_targets"][b, r : r + answer] = draw.integers(1, VOCABULARY, answer)
            batch["response_segment"][b, r : r + answer] = s
            batch["response_mask"][b, r : r + answer] = 1
            batch["last_prompt_index"][b, s] = max(t, end - answer - 1)
            t, r = int(end), r + answer
    for name in ("advantage", "reference_log_prob", "success", "progress", "progress_weight"):
        batch[name] = draw.random((B, S)).astype(np.float32)
    batch["reference_log_prob"] *= -10
    batch["support"] = draw.integers(-1, VOCABULARY, (B, R, 4)).astype(np.int32)
    return batch


LOSSES = {
    "sft": lambda model, batch: SFT(prompt_weight=0.5).loss(model.trunk, batch)[0],
    "actor": lambda model, batch: Mira(beta=1.0, support_weight=1.0, support_tokens=4).loss(model.trunk, batch)[0],
    "critic": lambda model, batch: CriticRecipe().loss(model, batch)[0],
}
"""The recipes' own, on a critic whose trunk is the policy."""


def measure(cases: list[tuple[str, ...]]) -> dict[str, dict[str, float]]:
    """For each (loss, mesh) or (loss, mesh, kernel) the largest errors of loss and gradient, each relative to the largest number in
    the same array. A kernel is interpreted, and is compared with the attention of XLA on one device."""
    model = Critic(CONFIG, rngs=nnx.Rngs(0))
    for head in model.heads.values():
        head.out[...] = jnp.linspace(-1, 1, CONFIG.width)
    params = jax.device_get(params_of(model))
    batch = {name: array[None] for name, array in packed_batch(np.random.default_rng(0)).items()}

    def value_and_gradient(params, batch, loss, bones):
        part = {name: array[0] for name, array in batch.items()}
        return jax.value_and_grad(lambda params: (lambda mean: mean.total / mean.weight)(LOSSES[loss](bones.merge(params), part)))(params)

    def bones_with(kernel):
        return skeleton(lambda rngs: use_kernels(Critic(CONFIG, rngs=rngs), dict.fromkeys((LOCAL, GLOBAL), kernel)))

    plain = bones_with(Kernel())
    expected, errors = {}, {}
    for loss, mesh, *kernel in cases:
        bones = bones_with(Kernel(kernel[0], interpret=True)) if kernel else plain
        if loss not in expected:
            expected[loss] = jax.device_get(jax.jit(partial(value_and_gradient, loss=loss, bones=plain))(params, batch))
        layout = make_layout(MESHES[mesh], ROWS, LENGTH)
        places = layout.of(bones.params)
        with layout.active():
            step = jax.jit(partial(value_and_gradient, loss=loss, bones=bones), out_shardings=(None, places))
            got = jax.device_get(step(jax.device_put(params, places), layout.put_batch(batch, ROWS)))
        both = zip(jax.tree.leaves(got), jax.tree.leaves(expected[loss]), strict=True)
        relative = [float(np.abs(ours - theirs).max() / (np.abs(theirs).max() or 1)) for ours, theirs in both]
        name = " ".join([loss, "on", mesh, *kernel])
        errors[name] = {"loss": relative[0], "gradient": max(relative[1:])}
        print(name, errors[name], f"{time.process_time():.0f} s of CPU", file=sys.stderr, flush=True)
    return errors


def shares() -> dict[str, float]:
    """The most that one device holds of a model's parameters, as a share of them all: made, while being made, and restored."""
    config = Gemma3Config(1024, 128, 4, 8, 2, 16, 256, window=5, layer_types=(LOCAL, GLOBAL) * 2, scan_layers=True)
    build = partial(Gemma3, config)
    bones = skeleton(lambda rngs: build(rngs=rngs))
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(bones.params))

    def share(params) -> float:
        held = dict.fromkeys(jax.devices(), 0)
        for leaf in jax.tree.leaves(params):
            for shard in leaf.addressable_shards:
                held[shard.device] += shard.data.nbytes
        return max(held.values()) / whole

    made_on, restored_on = (make_layout(mesh, ROWS, LENGTH) for mesh in (MeshConfig(fsdp=8), MeshConfig(fsdp=4, tensor=2)))
    places = made_on.of(bones.params)
    program = jax.jit(lambda: params_of(build(rngs=nnx.Rngs(0))), out_shardings=places).lower().compile().memory_analysis()
    params = init_params(lambda rngs: build(rngs=rngs), 0, None, places)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder, keep=1)
        data = Batches([{}])
        next(data)
        checkpoints.save(1, TrainState(params, {}, jnp.ones((), jnp.int32)), data)
        checkpoints.close()
        abstract = restored_on.abstract(TrainState(bones.params, {}, jax.ShapeDtypeStruct((), jnp.int32)))
        restored = Checkpoints(folder, keep=1).restore(abstract, Batches([{}])).params
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(params))
    return {"made": share(params), "while made": program.temp_size_in_bytes / whole, "restored": share(restored)}


def long_row() -> dict[str, float]:
    """A row of 16,384 tokens on eight devices: the largest error of attention, and the largest array gathered by a
    gradient, as a share of the activations of the row."""
    length, width, heads = 16_384, 64, 8
    q, k, v = (jax.random.normal(jax.random.key(i), (1, length, 1, heads)) for i in range(3))
    segment_ids = jnp.asarray(np.searchsorted([1000, 9000, 9100, 16_000], np.arange(length), side="right")[None] + 1)
    layout = make_layout(MESHES["sequence"], ROWS, length)
    result = {}
    for window in (512, None):
        expected = jax.jit(attention.attend, static_argnums=(4, 5))(q, k, v, segment_ids, window, 1.0)
        with layout.active():
            got = jax.jit(sequence.attend, static_argnums=(4, 5))(q, k, v, segment_ids, window, 1.0)
        result[f"error, window {window}"] = float(np.abs(jax.device_get(got) - jax.device_get(expected)).max())
    config = Gemma3Config(VOCABULARY, width, 2, 1, 1, heads, 32, window=512, layer_types=(LOCAL, GLOBAL))
    bones = skeleton(lambda rngs: Gemma3(config, rngs=rngs))
    loss = lambda params, tokens: jnp.sum(bones.merge(params)(tokens))  # noqa: E731
    with layout.active():
        arguments = layout.abstract(bones.params), jax.ShapeDtypeStruct((1, length), jnp.int32)
        text = jax.jit(jax.grad(loss)).lower(*arguments).compile().as_text()
    gathered = [
        math.prod(int(size) for size in shape.split(",") if size)
        for line in text.splitlines()
        if " all-gather" in line
        for shape in re.findall(r"\w+\[([\d,]*)\]", line.split(" all-gather")[0])
    ]
    return result | {"gathered": max(gathered, default=0) / (length * width)}


if __name__ == "__main__":
    whole = {"shares": shares, "long_row": long_row}.get(sys.argv[1])
    print(json.dumps(whole() if whole else measure([tuple(case.split(":")) for case in sys.argv[1:]])))
