"""Kernels against the attention of XLA: interpreted on a CPU, compiled on the accelerator that they are for (`make test-device`)."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mira_jax.errors import ConfigError, UserError
from mira_jax.models import attention
from mira_jax.models.config import GLOBAL, LOCAL, PRESETS, Gemma3Config
from mira_jax.models.gemma3 import Gemma3, use_kernels
from mira_jax.models.kernels import ranges, sharded, splash
from mira_jax.models.kernels.check import require_right
from mira_jax.models.kernels.choose import DTYPES, PLATFORMS, XLA, Kernel, choose_kernels, describe_kernels
from tests.models.test_sharding import TOLERANCE, on_eight_devices


@pytest.fixture
def kernel(request):
    """The named kernel: compiled on its accelerator, interpreted on a CPU."""
    name, here = request.param, jax.default_backend()
    if here not in ("cpu", PLATFORMS[name]):
        pytest.skip(f"{name} runs on {PLATFORMS[name]}, and this is {here}")
    return Kernel(name, interpret=here == "cpu")


def arrays(length, heads, kv_heads, dim, rows=2):
    random = np.random.default_rng(length)
    return [jnp.asarray(random.normal(size=(rows, length, count, dim)), jnp.float32) for count in (heads, kv_heads, kv_heads, heads)]


def segments_of(length, starts):
    """Two rows. In the first, segments begin at `starts`, and the last 5 tokens are padding."""
    index = np.arange(length)
    ids = np.stack([np.searchsorted(starts, index, side="right") + 1, np.ones(length)]).astype(np.int32)
    ids[0, length - 5 :] = 0
    return jnp.asarray(ids)


def both(attend, q, k, v, probe):
    """The result, and the gradients of q, k and v."""
    with jax.default_matmul_precision("highest"):
        out, pullback = jax.vjp(jax.jit(attend), q, k, v)
        return out, *pullback(probe.astype(out.dtype))


def given(kernel, x):
    """In float32 if the kernel takes that here, otherwise rounded to bfloat16."""
    return x if kernel.interpret or "float32" in DTYPES[kernel.name] else x.astype(jnp.bfloat16)


def assert_same(mine, other):
    tolerance = {"atol": 5e-5} if mine.dtype == jnp.float32 else {"atol": 0.03, "rtol": 0.03}
    np.testing.assert_allclose(np.asarray(mine, np.float32), np.asarray(other, np.float32), **tolerance)


@pytest.mark.parametrize("kernel", ["splash", "pallas"], indirect=True)
@pytest.mark.parametrize(
    ("length", "heads", "kv_heads", "dim", "window", "starts"),
    [
        (256, 4, 2, 64, None, (127, 128, 129)),
        (300, 4, 1, 64, 130, (100, 256)),
        (257, 2, 2, 64, 128, (1,)),
        (200, 2, 2, 64, 1, (60,)),
        (90, 4, 2, 128, 7, (13, 14)),
        (150, 2, 1, 256, 400, (149,)),
        (140, 2, 1, 64, None, None),
    ],
)
def test_a_kernel_equals_xla_in_values_and_gradients(kernel, length, heads, kv_heads, dim, window, starts):
    q, k, v, probe = (given(kernel, x) for x in arrays(length, heads, kv_heads, dim))
    segments = None if starts is None else segments_of(length, starts)
    scale = dim**-0.5
    ours = both(lambda *qkv: sharded.attend(kernel, *qkv, segments, window, scale), q, k, v, probe)
    exact = (x.astype(jnp.float32) for x in (q, k, v, probe))
    theirs = both(lambda *qkv: attention.attend(*qkv, segments, window, scale), *exact)
    for mine, other in zip(ours, theirs, strict=True):
        assert_same(mine, other)


@pytest.mark.parametrize("kernel", ["splash", "pallas"], indirect=True)
def test_a_packed_row_equals_its_steps_in_rows_of_their_own(kernel):
    q, k, v, _ = (given(kernel, x) for x in arrays(200, 2, 1, 64, rows=1))
    starts = (0, 70, 71, 150, 200)
    segments = jnp.asarray(np.searchsorted(starts[1:-1], np.arange(200), side="right")[None] + 1, jnp.int32)
    packed = sharded.attend(kernel, q, k, v, segments, 40, 0.1)
    for start, stop in itertools.pairwise(starts):
        alone = sharded.attend(kernel, *(x[:, start:stop] for x in (q, k, v)), None, 40, 0.1)
        assert_same(packed[:, start:stop], alone)


@pytest.mark.parametrize("kernel", ["splash", "pallas"], indirect=True)
@pytest.mark.parametrize("window", [None, 30])
def test_the_last_tokens_of_a_row_get_what_all_get(kernel, window):
    q, k, v, _ = (given(kernel, x) for x in arrays(190, 2, 1, 64))
    segments = segments_of(190, (50, 120))
    every = attention.attend(q, k, v, segments, window, 0.1)
    last = sharded._local(kernel, q[:, 100:], k, v, segments, window=window, scale=0.1)
    assert_same(last, every[:, 100:])


@pytest.mark.parametrize("kernel", ["splash", "pallas"], indirect=True)
def test_bfloat16_is_as_exact_as_with_xla(kernel):
    q, k, v, probe = (x.astype(jnp.bfloat16) for x in arrays(160, 2, 1, 64))
    segments = segments_of(160, (90,))
    attend = lambda *qkv: attention.attend(*qkv, segments, None, 0.125)  # noqa: E731
    exact = both(attend, *(x.astype(jnp.float32) for x in (q, k, v, probe)))
    ours = both(lambda *qkv: sharded.attend(kernel, *qkv, segments, None, 0.125), q, k, v, probe)
    theirs = both(attend, q, k, v, probe)
    error = lambda one, other: float(jnp.sqrt(jnp.mean(jnp.square(one.astype(jnp.float32) - other))))  # noqa: E731
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == jnp.bfloat16 and error(mine, true) < 1.5 * error(other, true)


@pytest.mark.parametrize("window", [None, 9])
def test_cudnn_without_segments_is_xla(window):
    if (here := jax.default_backend()) not in ("cpu", "gpu"):
        pytest.skip(f"cudnn runs on gpu, and this is {here}")
    q, k, v, _ = (x.astype(jnp.bfloat16) for x in arrays(40, 4, 2, 64))
    out = sharded.attend(Kernel("cudnn", interpret=here == "cpu"), q, k, v, None, window, 0.2)
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (out, attention.attend(q, k, v, None, window, 0.2))), atol=0.03)


def test_cudnn_refuses_segments():
    q, k, v, _ = arrays(20, 2, 2, 64)
    with pytest.raises(UserError, match="cudnn takes no segment ids"):
        sharded.attend(Kernel("cudnn"), q, k, v, segments_of(20, (5,)), None, 1.0)


@pytest.mark.parametrize("window", [None, 1, 4, 50])
def test_the_first_key_of_each_query_is_found_as_by_a_loop(window):
    segments = np.array([[1, 1, 1, 2, 3, 3, 3, 3, 0, 0], [0, 0, 5, 5, 5, 5, 5, 5, 5, 2]])
    expected = [
        [next(j for j in range(i + 1) if len(set(row[j : i + 1])) == 1 and (window is None or i - j < window)) for i in range(len(row))]
        for row in segments
    ]
    first = ranges.first_seen(jnp.asarray(segments), window)
    assert first.dtype == jnp.int32 and first.tolist() == expected


@pytest.mark.parametrize(
    ("length", "window", "block"),
    [(32, None, 128), (4096, None, 512), (4097, None, 512), (1025, None, 128), (2048, 512, 512), (2048, 70, 128)],
)
def test_blocks_are_large_where_that_pads_little(length, window, block):
    assert splash.block_size(length, window) == block


SIZES = Gemma3Config(64, 16, 5, 4, 2, 8, 32, window=5, layer_types=(LOCAL, GLOBAL) * 2 + (LOCAL,), scan_layers=True)


def test_a_model_with_the_kernel_has_the_loss_and_gradients_of_one_without():
    if jax.default_backend() != "cpu":
        pytest.skip("its heads are smaller than those of a Gemma3")
    tokens = jnp.asarray(np.random.default_rng(0).integers(1, 64, (2, 40)))
    segments = segments_of(40, (7, 8, 21))

    def loss(model):
        logits = model.logits(model(tokens, None, segments))
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], axis=-1)
        return -jnp.mean(log_probs * (segments[:, 1:, None] > 0))

    found = []
    for kernel in (Kernel(), Kernel("splash", interpret=True)):
        model = use_kernels(Gemma3(SIZES, rngs=nnx.Rngs(0), remat="block"), {LOCAL: kernel, GLOBAL: kernel})
        graph, state = nnx.split(model)
        compute = jax.value_and_grad(lambda state, graph=graph: loss(nnx.merge(graph, state)))
        assert ("pallas_call" in str(jax.make_jaxpr(compute)(state))) == (kernel.name == "splash")
        found.append(jax.jit(compute)(state))
    for mine, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-6)


def test_losses_and_gradients_with_a_kernel_on_a_mesh_equal_those_of_one_device():
    errors = on_eight_devices("actor:data x fsdp x tensor:splash", "actor:fsdp x sequence:splash")
    assert len(errors) == 2
    for case, error in errors.items():
        assert all(error[name] < TOLERANCE[name] for name in TOLERANCE), (case, error)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["splash", "pallas"])
def test_losses_and_gradients_with_a_kernel_on_other_meshes_equal_those_of_one_device(name):
    errors = on_eight_devices(*(f"sft:{mesh}:{name}" for mesh in ("tensor", "sequence", "fsdp x tensor x sequence")))
    assert len(errors) == 3
    for case, error in errors.items():
        assert all(error[name] < TOLERANCE[name] for name in TOLERANCE), (case, error)


@pytest.mark.parametrize("name", ["splash", "pallas"])
def test_a_kernel_is_not_run_again_if_heads_are_kept(name):
    """By the number of kernels in the program of a gradient."""
    config = dataclasses.replace(SIZES, layers=2, layer_types=(LOCAL, GLOBAL), head_dim=64, scan_layers=False)
    kernel = Kernel(name, interpret=True)

    def kernels(remat):
        graph, state = nnx.split(use_kernels(Gemma3(config, rngs=nnx.Rngs(0), remat=remat), {LOCAL: kernel, GLOBAL: kernel}))
        tokens = jnp.ones((1, 40), jnp.int32)
        return str(jax.make_jaxpr(jax.grad(lambda state: jnp.sum(jnp.sin(nnx.merge(graph, state)(tokens)))))(state)).count("pallas_call[")

    assert kernels("block") > kernels(["heads"]) == kernels("none") == kernels("products")


@pytest.mark.parametrize("name", ["splash", "pallas"])
def test_a_kernel_that_gives_wrong_results_here_is_refused(name, monkeypatch):
    config = dataclasses.replace(SIZES, head_dim=64)
    kernels = {LOCAL: Kernel(name, interpret=True), GLOBAL: Kernel()}
    require_right(kernels, config, "bfloat16", tokens=160)
    attend = sharded.attend
    # A window that is one token too wide.
    monkeypatch.setattr(sharded, "attend", lambda kernel, q, k, v, ids, window, scale: attend(kernel, q, k, v, ids, window + 1, scale))
    with pytest.raises(ConfigError, match=rf"{name} gives wrong results on this machine \(relative error .* in local layers\); set xla"):
        require_right(kernels, config, "bfloat16", tokens=192)


@pytest.mark.parametrize(
    ("preset", "dtype", "platform", "chosen"),
    [
        ("12b", "float32", "cpu", "local xla (on cpu), global xla (on cpu)"),
        ("12b", "bfloat16", "tpu", "local splash (on tpu), global splash (on tpu)"),
        ("27b", "float32", "tpu", "local splash (on tpu), global splash (on tpu)"),
        ("12b", "bfloat16", "gpu", "local pallas (on gpu), global pallas (on gpu)"),
    ],
)
def test_auto_takes_the_kernel_of_the_backend(preset, dtype, platform, chosen):
    assert describe_kernels(choose_kernels("auto", PRESETS[preset], dtype, platform=platform)) == f"attention: {chosen}"


def test_auto_says_why_it_takes_no_kernel():
    reason = choose_kernels("auto", PRESETS["12b"], "float32", platform="gpu")[LOCAL].reason
    assert reason == "pallas takes activations in bfloat16, not float32"
    assert "this model has 8" in choose_kernels("auto", SIZES, "bfloat16", platform="tpu")[LOCAL].reason


def test_each_kind_of_layer_has_its_own():
    kernels = choose_kernels({"global": "xla"}, PRESETS["12b"], "bfloat16", platform="tpu")
    assert (kernels[LOCAL].name, kernels[GLOBAL].name) == ("splash", "xla")
    assert choose_kernels("xla", PRESETS["12b"], "float32", platform="gpu") == XLA


@pytest.mark.parametrize(
    ("setting", "platform", "message"),
    [
        ("splash", "cpu", r"^model.attention: splash runs on tpu, and this is cpu; set auto or xla"),
        ({"local": "pallas"}, "tpu", r"^model.attention.local: pallas runs on gpu"),
        ("pallas", "gpu", "takes activations in bfloat16, not float32"),
        ("cudnn", "gpu", "cudnn is tested with head dims 64, 128, and this model has 256"),
    ],
)
def test_an_implementation_that_cannot_be_used_is_refused(setting, platform, message):
    with pytest.raises(ConfigError, match=message):
        choose_kernels(setting, PRESETS["12b"], "float32", platform=platform)


def test_cudnn_is_refused_for_rows_with_segments():
    with pytest.raises(ConfigError, match="cudnn takes no segment ids"):
        choose_kernels("cudnn", PRESETS["27b"], "bfloat16", platform="gpu")
    assert choose_kernels("cudnn", PRESETS["27b"], "bfloat16", platform="gpu", segments=False)[LOCAL].name == "cudnn"
