"""The GPU kernels in interpret mode, against a textbook form of attention."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mira_jax.errors import UserError
from mira_jax.models.kernels import flash
from mira_jax.models.kernels.flash import Blocks, Tiling
from mira_jax.sizing.chips import parse_topology
from mira_jax.sizing.compiled import UNTIMED
from mira_jax.sizing.devices import absent_devices
from mira_jax.sizing.targets import TARGETS

TILING = Tiling(Blocks(16, 8, 4), Blocks(8, 16, 4), Blocks(16, 8, 4))


def textbook(q, k, v, first, scale):
    """Every query over all keys, those outside its range masked."""
    place, groups = jnp.arange(q.shape[1]), q.shape[2] // k.shape[2]
    seen = (place[None, None] <= place[None, :, None]) & (place[None, None] >= first[:, :, None])
    logits = jnp.einsum("btnh,bsnh->bnts", q, jnp.repeat(k, groups, 2)) * scale
    weights = jax.nn.softmax(jnp.where(seen[:, None], logits, -jnp.inf))
    return jnp.einsum("bnts,bsnh->btnh", weights, jnp.repeat(v, groups, 2))


def ranges(starts, length, window):
    """The first key of every query, for segments that begin at `starts`."""
    first = np.array([max(start for start in starts if start <= t) for t in range(length)])
    return np.maximum(first, np.arange(length) - (window or length) + 1)


def case(length, heads, kv_heads, dim, window, dtype=jnp.float32):
    random = np.random.default_rng(length)
    q, k, v, probe = (jnp.asarray(random.normal(size=(2, length, n, dim)), dtype) for n in (heads, kv_heads, kv_heads, heads))
    starts = [[0], sorted({0, length // 3, length // 3 + 1, length - 5})]
    return q, k, v, jnp.asarray([ranges(row, length, window) for row in starts], jnp.int32), probe


def both(attend, q, k, v, probe):
    """The output, and the gradients of its product with `probe`."""
    out, gradient = jax.vjp(attend, q, k, v)
    return out, *gradient(probe)


@pytest.mark.parametrize("window", [None, 1, 4, 16, 17, 69, 70])
def test_equals_the_textbook_form_for_every_window(window):
    q, k, v, first, probe = case(70, 4, 2, 8, window)
    ours = both(lambda *a: flash.attend(*a, first, 0.3, tiling=TILING, interpret=True), q, k, v, probe)
    theirs = both(lambda *a: textbook(*a, first, 0.3), q, k, v, probe)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=5e-6)


@pytest.mark.parametrize(
    ("length", "heads", "kv_heads", "dim"), [(16, 2, 2, 8), (33, 4, 1, 16), (64, 8, 8, 8), (15, 4, 2, 64), (48, 2, 1, 256)]
)
def test_any_length_heads_and_head_dim(length, heads, kv_heads, dim):
    q, k, v, first, probe = case(length, heads, kv_heads, dim, 9)
    ours = both(lambda *a: flash.attend(*a, first, dim**-0.5, tiling=TILING, interpret=True), q, k, v, probe)
    theirs = both(lambda *a: textbook(*a, first, dim**-0.5), q, k, v, probe)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_packed_segments_get_what_each_gets_in_a_row_of_its_own():
    q, k, v, _, _ = case(50, 4, 2, 8, None)
    packed = flash.attend(q, k, v, jnp.asarray([ranges([0, 21, 30], 50, 6)] * 2, jnp.int32), 0.3, tiling=TILING, interpret=True)
    for start, stop in ((0, 21), (21, 30), (30, 50)):
        part = slice(start, stop)
        own = jnp.asarray([ranges([0], stop - start, 6)] * 2, jnp.int32)
        apart = flash.attend(q[:, part], k[:, part], v[:, part], own, 0.3, tiling=TILING, interpret=True)
        np.testing.assert_allclose(packed[:, part], apart, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("tilings", [flash.SMALL_TILINGS, *flash.TILINGS.values()])
@pytest.mark.parametrize("dim", [64, 128, 256])
def test_the_tilings_in_use_are_right_in_bfloat16(dim, tilings):
    q, k, v, first, probe = case(200, 2, 1, dim, 150, jnp.bfloat16)
    ours = both(lambda *a: flash.attend(*a, first, dim**-0.5, tiling=tilings[dim], interpret=True), q, k, v, probe)
    exact = (x.astype(jnp.float32) for x in (q, k, v, probe))
    theirs = both(lambda *a: textbook(*a, first, dim**-0.5), *exact)
    for mine, other in zip(ours, theirs, strict=True):
        error = jnp.linalg.norm((mine - other).ravel()) / jnp.linalg.norm(other.ravel())
        assert error < 6e-3


def test_a_head_dim_without_tiling_and_too_many_elements_are_refused():
    q, k, v, first, _ = case(16, 2, 2, 96, None)
    with pytest.raises(ValueError, match="head dim 96: the kernels have tilings for 64, 128, 256"):
        flash.attend(q, k, v, first, 0.3)
    wide = [jax.ShapeDtypeStruct((2**15, 2**10, 1, 64), jnp.bfloat16)] * 3
    with pytest.raises(ValueError, match="count to 2"):
        jax.eval_shape(lambda *a: flash.attend(*a, jnp.zeros((2**15, 2**10), jnp.int32), 0.3), *wide)


@pytest.mark.parametrize("capability, expected", [("9.0", 128), ("10.0", 128), ("8.9", 64), ("12.0", 64)])
def test_the_tiling_is_that_of_the_gpu(capability, expected, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=capability)])
    assert flash.default_tiling(256).forward.queries == expected


def test_flops_by_hand():
    """Eight queries in blocks of 4, keys in blocks of 2, two segments of 3 and 5 tokens, padded to whole blocks."""
    tiling = Tiling(Blocks(4, 2, 4), Blocks(4, 2, 4), Blocks(4, 2, 4))
    first = ranges([0, 3], 8, None)  # 0 0 0 3 3 3 3 3
    # Queries 0-3 see the key blocks 0-1, queries 4-7 the blocks 1-3: five pairs of blocks. Of the keys, the block 0-1 is seen by the first
    # block of queries, 2-3 by both, and 4-5 and 6-7 by the second: also five.
    pair = 2 * 4 * 2 * 16 * 5
    expected = {flash.FORWARD: 2 * pair, flash.QUERY_GRADIENT: 3 * pair, flash.KEY_GRADIENT: 4 * pair}
    assert flash.flops(first, 16, tiling) == expected


@pytest.mark.parametrize("window", [None, 5, 16])
def test_flops_are_those_of_all_blocks_with_a_visible_pair(window):
    first = ranges([0, 13, 14, 50], 69, window)
    padded = np.concatenate([first, np.full(TILING.padding(69), 69)])
    place = np.arange(len(padded))
    seen = (place[None] <= place[:, None]) & (place[None] >= padded[:, None])

    def visited(blocks):
        return seen.reshape(len(seen) // blocks.queries, blocks.queries, -1, blocks.keys).any(axis=(1, 3)).sum()

    found = flash.flops(first, 32, TILING)
    assert found[flash.FORWARD] == 4 * 16 * 8 * 32 * visited(TILING.forward)
    assert found[flash.QUERY_GRADIENT] == 6 * 8 * 16 * 32 * visited(TILING.query_gradient)
    assert found[flash.KEY_GRADIENT] == 8 * 16 * 8 * 32 * visited(TILING.key_gradient)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("kind", ["a100", "h100", "h200", "b200"])
def test_they_compile_for_gpus_that_are_not_here(kind, dim):
    tilings = next(
        (own for start, own in flash.TILINGS.items() if f"{TARGETS[kind].capability[0]}.".startswith(start)), flash.SMALL_TILINGS
    )
    jax.config.update("jax_platforms", "cpu")  # As `mira size` does; otherwise JAX looks for the GPU.
    try:
        devices = absent_devices(parse_topology(f"{kind}:1"))
    except UserError as error:
        pytest.skip(str(error))
    here = NamedSharding(Mesh(np.array(devices), ("d",)), PartitionSpec())
    q, k, v = (jax.ShapeDtypeStruct((1, 3000, n, dim), jnp.bfloat16, sharding=here) for n in (8, 4, 4))
    first = jax.ShapeDtypeStruct((1, 3000), jnp.int32, sharding=here)

    def loss(q, k, v, first):
        return jnp.sum(flash.attend(q, k, v, first, dim**-0.5, tiling=tilings[dim]).astype(jnp.float32))

    program = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, k, v, first).lower(lowering_platforms=("cuda",))
    text = program.compile(compiler_options=UNTIMED).as_text()
    assert all(f"flash_attention_{name}" in text for name in ("forward", "query_gradient", "key_gradient"))
