"""Completions on a mesh against those of one device. Run with four simulated devices; prints JSON."""

import dataclasses
import json
import tempfile
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax import serve
from mira_jax.errors import UserError
from mira_jax.models import huggingface
from mira_jax.models.config import GLOBAL, LOCAL, Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.lora import LoraConfig
from mira_jax.models.sampler import Sampler, Sampling, Work
from mira_jax.models.sharding import MeshConfig, make_mesh
from mira_jax.serve import ServeConfig, ServeMesh, load_newest, make_engine
from mira_jax.serving.engine import Engine, Generation, Job
from mira_jax.training.layout import Layout
from mira_jax.training.load import build_model
from mira_jax.training.state import params_of, skeleton
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer

SIZES = {"width": 64, "layers": 8, "query_heads": 8, "kv_heads": 4, "head_dim": 16, "mlp_width": 256, "window": 24,
         "layer_types": (LOCAL, GLOBAL) * 4, "scan_layers": True}  # fmt: skip
TENSOR = 4


def talkative(model: Gemma3) -> Gemma3:
    model.norm.scale[...] = jax.random.normal(jax.random.key(1), (model.config.width,))
    return model


def prompts(count: int, most: int) -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(10, most, length).tolist() for length in draw.integers(20, 160, count)]


def share(tree) -> float:
    """The most that one device holds of the arrays, as a share of their bytes."""
    held = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return max(held.values()) / sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def difference(ours: list[Generation], theirs: list[Generation]) -> dict[str, float]:
    names = ("log_probs", "sampling_log_probs", "prompt_log_probs")
    largest = {name: max(float(np.abs(np.subtract(getattr(a, name), getattr(b, name))).max()) for a, b in zip(ours, theirs, strict=True))
               for name in names if getattr(theirs[0], name)}  # fmt: skip
    return {"equal tokens": np.mean([a.tokens == b.tokens for a, b in zip(ours, theirs, strict=True)])} | largest


def completions(engine: Engine) -> list[Generation]:
    jobs = [
        Job(prompt, Sampling(12, 1.0, 0.95, seed, top_k=50 * (seed % 2)), score_prompt=True) for seed, prompt in enumerate(prompts(6, 300))
    ]
    return [future.result(timeout=300) for future in engine.submit(jobs)]


def served() -> dict[str, float]:
    """A folder of Hugging Face, served by the command's engine."""
    with tempfile.TemporaryDirectory() as scratch:
        path, folder = Path(scratch) / "tokenizer.model", Path(scratch) / "model"
        train_tokenizer(["blue lamp red cup search done click type\n"] * 20, path, 290)
        sizes = Gemma3Config(400, **SIZES)
        huggingface.save(talkative(Gemma3(sizes, rngs=nnx.Rngs(0))), folder, path)
        Tokenizer(folder)
        one = make_engine(ServeConfig(str(folder), rows=4, max_length=256))
        expected = completions(one)
        one.close()
        config = ServeConfig(str(folder), rows=4, max_length=256, mesh=ServeMesh(TENSOR))
        engine = make_engine(config)
        found = difference(completions(engine), expected)
        sampler = engine._sampler  # pyright: ignore[reportPrivateUsage]
        found |= {
            "parameters on a device": share(sampler._parameters),
            "cache on a device": share(sampler._cache.layers),
        }
        engine.replace_weights(load_newest(config)[0], "again").result(timeout=60)
        found["equal tokens after a reload"] = difference(completions(engine), expected)["equal tokens"]
        engine.close()
    for tensor, kv_heads in ((3, 4), (8, 8)):
        try:
            serve._layout(ServeMesh(tensor), dataclasses.replace(sizes, kv_heads=kv_heads))  # pyright: ignore[reportPrivateUsage]
        except UserError as error:
            found[f"message for {tensor}"] = str(error)
    return found


def loaded() -> dict[str, float]:
    """The peak of Python's and NumPy's memory while a model is read in bfloat16, as a share of its parameters."""
    sizes = Gemma3Config(400, **SIZES | {"mlp_width": 8192})
    with tempfile.TemporaryDirectory() as scratch:
        huggingface.save(Gemma3(sizes, rngs=nnx.Rngs(0)), scratch)
        config = ServeConfig(scratch, dtype="bfloat16", mesh=ServeMesh(TENSOR))
        tracemalloc.start()
        model, _ = load_newest(config)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    state = nnx.state(model, nnx.Param)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("bfloat16")}
    return {"peak on the host": peak / sum(leaf.nbytes for leaf in jax.tree.leaves(state)), "parameters on a device": share(state)}


def adapted() -> dict[str, float]:
    """A model with adapters, which stay unmerged, and batches of prompts."""
    sizes = Gemma3Config(300, **SIZES)
    bones = skeleton(lambda rngs: build_model(sizes, (), (LoraConfig(rank=4),), rngs=rngs))
    keys = iter(jax.random.split(jax.random.key(5), 1000))
    params = jax.tree.map(
        lambda leaf: leaf if jnp.any(leaf) or leaf.ndim < 3 else 0.1 * jax.random.normal(next(keys), leaf.shape),
        params_of(talkative(build_model(sizes, (), (LoraConfig(rank=4),), rngs=nnx.Rngs(0)))),
    )
    layout = Layout(make_mesh(MeshConfig(fsdp=1, tensor=2), jax.devices()[:2]))
    sharded = bones.merge(jax.device_put(params, layout.of(bones.params)))
    work = [Work(prompt, Sampling(10, 1.0, seed=seed)) for seed, prompt in enumerate(prompts(4, 300))]

    def complete(sampler: Sampler) -> list[Generation]:
        rows = (
            [row for one in work for row in sampler.insert([one])]
            if not sampler.is_batch([one.prompt for one in work])
            else sampler.insert(work)
        )
        generations, active = [Generation() for _ in rows], True
        while active:
            chunk = sampler.advance()
            for row, made in zip(rows, generations, strict=True):
                made.tokens += chunk.tokens[row, : chunk.count[row]].tolist()
                made.log_probs += chunk.log_probs[row, : chunk.count[row]].tolist()
            active = bool(chunk.active.any())
        return generations

    expected = complete(Sampler(bones.merge(params), (1,), rows=4, max_length=256))
    found = {}
    for name, options in (("alone", {}), ("in a batch", {"prefill_tokens": 1024})):
        sampler = Sampler(sharded, (1,), rows=4, max_length=256, mesh=layout.mesh, **options)
        found |= {f"{name}: {key}": value for key, value in difference(complete(sampler), expected).items()}
    return found


if __name__ == "__main__":
    print(json.dumps({"served": served(), "loaded": loaded(), "adapted": adapted()}))
