import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mira_jax.models import attention


def numpy_attention(q, k, v, segments, window, scale):
    """Token by token, in float64."""
    out = np.zeros(q.shape)
    rows, length, heads, _ = q.shape
    per_kv = heads // k.shape[2]
    for b in range(rows):
        for i in range(length):
            seen = [j for j in range(i + 1) if segments[b, j] == segments[b, i] and (window is None or i - j < window)]
            for n in range(heads):
                logits = k[b, seen, n // per_kv] @ q[b, i, n] * scale
                weights = np.exp(logits - logits.max())
                out[b, i, n] = weights / weights.sum() @ v[b, seen, n // per_kv]
    return out


def arrays(length, heads=4, kv_heads=2, dim=6, rows=2, seed=0):
    random = np.random.default_rng(seed)
    shapes = [(rows, length, heads, dim), (rows, length, kv_heads, dim), (rows, length, kv_heads, dim)]
    return [random.normal(size=shape).astype(np.float32) * 2 for shape in shapes]


def segments_of(length, rows=2):
    segments = np.ones((rows, length), np.int32)
    segments[0, length // 3 :] = 2
    segments[0, length - 5 :] = 0
    return segments


@pytest.mark.parametrize(
    ("length", "window"),
    [(23, None), (23, 1), (23, 4), (23, 22), (23, 23), (23, 24), (150, None), (150, 70), (150, 9)],
)
def test_equals_a_plain_loop(length, window):
    q, k, v = arrays(length)
    segments = segments_of(length)
    out = attention.attend(q, k, v, segments, window, 0.3)
    np.testing.assert_allclose(out, numpy_attention(q, k, v, segments, window, 0.3), atol=2e-5)


@pytest.mark.parametrize(("length", "window"), [(131, 9), (131, 1), (96, 16), (65, 32), (131, 40), (100, 37)])
def test_long_local_rows_are_banded_and_equal_a_plain_loop(length, window, monkeypatch):
    monkeypatch.setattr(attention, "MOST_BLOCKS", 1)
    monkeypatch.setattr(attention, "BLOCK", 8)
    q, k, v = arrays(length)
    segments = segments_of(length)
    called = []
    banded = attention._banded
    monkeypatch.setattr(attention, "_banded", lambda *a: called.append(1) or banded(*a))
    out = attention.attend(q, k, v, segments, window, 0.3)
    assert called
    np.testing.assert_allclose(out, numpy_attention(q, k, v, segments, window, 0.3), atol=2e-5)


def test_the_banded_form_holds_no_array_that_grows_with_the_square():
    def widest(length):
        q, k, v = (jax.ShapeDtypeStruct((1, length, 2, 4), jnp.float32) for _ in range(3))
        program = jax.make_jaxpr(lambda q, k, v: attention.attend(q, k, v, None, 16, 1.0))(q, k, v)
        return max(np.prod(var.aval.shape) for equation in program.eqns for var in equation.outvars)

    assert widest(8192) == 4 * widest(2048)


@pytest.mark.parametrize(("length", "window"), [(300, None), (300, 130), (300, 40), (150, 9)])
def test_the_longest_rows_go_tile_by_tile_and_equal_a_plain_loop(length, window, monkeypatch):
    monkeypatch.setattr(attention, "KEPT_WEIGHTS", 0)
    monkeypatch.setattr(attention, "TILE", 130)
    q, k, v = arrays(length)
    segments = segments_of(length)
    out = jax.jit(lambda *a: attention.attend(*a, window, 0.3))(q, k, v, segments)
    np.testing.assert_allclose(out, numpy_attention(q, k, v, segments, window, 0.3), atol=2e-5)


def test_no_array_of_the_longest_rows_grows_with_the_square():
    def widest(length):
        """Of either pass, the scans' bodies included."""
        q, k, v = (jax.ShapeDtypeStruct((1, length, heads, 8), jnp.float32) for heads in (16, 8, 8))
        text = str(jax.make_jaxpr(jax.grad(lambda *a: attention.attend(*a, None, None, 1.0).sum(), (0, 1, 2)))(q, k, v))
        shapes = re.findall(r"f32\[([\d,]+)\]", text)
        return max(math.prod(map(int, shape.split(","))) for shape in shapes)

    assert widest(16_384) == widest(8192) == 16 * attention.TILE**2


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("window", [None, 20])
def test_gradients_are_those_of_the_textbook_form(window, tiled, monkeypatch):
    if tiled:
        monkeypatch.setattr(attention, "KEPT_WEIGHTS", 0)
        monkeypatch.setattr(attention, "TILE", 30)
        monkeypatch.setattr(attention, "BLOCK", 15)
    q, k, v = (jnp.asarray(x) for x in arrays(70))
    segments = jnp.asarray(segments_of(70))

    def textbook(q, k, v):
        distance = jnp.arange(70)[:, None] - jnp.arange(70)
        seen = (distance >= 0) & (distance < (window or 70)) & (segments[:, :, None] == segments[:, None])
        logits = jnp.einsum("btkgh,bskh->bkgts", q.reshape(2, 70, 2, 2, 6), k) * 0.3
        weights = jax.nn.softmax(jnp.where(seen[:, None, None], logits, -jnp.inf))
        return jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(q.shape)

    probe = jnp.asarray(np.random.default_rng(5).normal(size=q.shape), jnp.float32)
    ours = jax.grad(lambda *a: jnp.sum(probe * attention.attend(*a, segments, window, 0.3)), argnums=(0, 1, 2))(q, k, v)
    theirs = jax.grad(lambda *a: jnp.sum(probe * textbook(*a)), argnums=(0, 1, 2))(q, k, v)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=5e-5)


def test_chosen_queries_get_what_all_queries_get():
    q, k, v = arrays(40)
    segments = segments_of(40)
    index = np.array([[0, 13, 14, 34], [5, 39, 5, 20]])
    every = attention.attend(q, k, v, segments, 6, 0.3)
    some = attention.attend_from(np.take_along_axis(q, index[..., None, None], 1), index, k, v, segments, 6, 0.3)
    np.testing.assert_allclose(some, np.take_along_axis(np.asarray(every), index[..., None, None], 1), atol=1e-5)


def test_bfloat16_inputs_have_fp32_logits():
    q, k, v = arrays(30)
    q, k = q * 20, k * 20
    half = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    exact = numpy_attention(*(np.asarray(x, np.float64) for x in half), segments_of(30), None, 0.3)
    out = attention.attend(*half, segments_of(30), None, 0.3)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), exact, atol=0.05)
