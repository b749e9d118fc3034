"""Gemma3 in Flax NNX: one definition for training, scoring and decoding, from 1M to 27B parameters.

Shapes: B rows, T tokens, D width, N query heads, K kv heads, H head dim, F mlp width, V vocabulary, S cache slots, R selected
tokens of a row.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from mira_jax.models import attention, sequence
from mira_jax.models.config import GLOBAL, LOCAL, Gemma3Config
from mira_jax.models.kernels import sharded
from mira_jax.models.kernels.choose import Kernel, Kernels
from mira_jax.models.remat import HEADS, Remat, kept, rematerialised
from mira_jax.models.sharding import constrain, whole_width


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the previous tokens. Slot s of a row contains its token s."""

    layers: list[tuple[jax.Array, jax.Array]]
    """The (keys, values) of each layer, BxKxSxH: the layout of attention's products, so no step needs to transpose the cache."""
    lengths_B: jax.Array
    """Number of tokens in each row."""
    empty: bool = dataclasses.field(default=False, metadata={"static": True})
    """True if no row contains a token yet. Prefill then attends only to its own tokens."""


CACHE_AXES = ("batch", "heads", None, None)
"""Logical axes of the keys or values of one layer, BxKxSxH."""


class RMSNorm(nnx.Module):
    """x / rms(x) * (1 + scale), in fp32, cast back to the dtype of x."""

    def __init__(self, shape: tuple[int, ...], eps: float, param_dtype):
        self.scale = nnx.Param(jnp.zeros(shape, param_dtype))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * inverse * (1.0 + self.scale[...].astype(jnp.float32))).astype(x.dtype)


def rope(x_BxTxNxH: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates the two halves of the head dim; `angles` are (cos, sin), each BxTx1x(H/2), fp32."""
    cos, sin = angles
    first, second = jnp.split(x_BxTxNxH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_BxTxNxH.dtype)


def rope_angles(positions_BxT: jax.Array, head_dim: int, base: float, factor: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) of the rotary embedding, each BxTx1x(H/2), fp32."""
    frequencies = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim) / factor
    angles = positions_BxT[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


@dataclasses.dataclass(frozen=True)
class _Context:
    """Values shared by all layers in one forward pass."""

    segment_ids: jax.Array | None
    angles: dict[str, tuple[jax.Array, jax.Array]]
    slots: jax.Array | None = None
    """With a cache: the slot of each token, BxT."""
    empty: bool = False


def project(x_BxTxD: jax.Array, matrix_Dx: jax.Array) -> jax.Array:
    """x @ matrix for a matrix of shape D x anything.

    Rows and tokens are merged into one axis for the product, so that the gradient of the matrix contracts a single axis.
    Contracting two axes is much slower with XLA on CPU. The axes stay separate on a mesh that shards tokens.
    """
    out = matrix_Dx.shape[1:]
    matrix = matrix_Dx.reshape(matrix_Dx.shape[0], -1)
    if sequence.parts() > 1:
        product = x_BxTxD @ matrix
    else:
        product = x_BxTxD.reshape(-1, x_BxTxD.shape[-1]) @ matrix
    return product.reshape(*x_BxTxD.shape[:-1], *out)


INPUT_AXES = {"output": 2}
"""Number of axes that a matrix's product contracts, if not one."""


def linear(part: nnx.Module, name: str, x_BxTxD: jax.Array) -> jax.Array:
    """Applies the matrix `name` of an attention or MLP, and its adapters if it has any (`mira_jax.models.lora`)."""
    matrix = whole_width(getattr(part, name)[...].astype(x_BxTxD.dtype), name)
    out = project(x_BxTxD, matrix.reshape(x_BxTxD.shape[-1], *matrix.shape[INPUT_AXES.get(name, 1) :]))
    return checkpoint_name(out if part.lora is None else out + part.lora(name, x_BxTxD), name)


class Attention(nnx.Module):
    """Grouped-query attention with normalised queries and keys; local (windowed) or global."""

    lora = None
    """`mira_jax.models.lora.Adapters` if the model has adapters. The same applies to the MLP."""
    kernel = Kernel()
    """The implementation of attention over the tokens of a row (`use_kernels`). That of selected tokens, and over a cache, is XLA's."""

    def __init__(self, config: Gemma3Config, layer_type: str, stack: tuple[int, ...], rngs: nnx.Rngs, param_dtype):
        d, n, k, h = config.width, config.query_heads, config.kv_heads, config.head_dim
        self.query = matrix(rngs, stack, (d, n, h), d, param_dtype)
        self.key = matrix(rngs, stack, (d, k, h), d, param_dtype)
        self.value = matrix(rngs, stack, (d, k, h), d, param_dtype)
        self.output = matrix(rngs, stack, (n, h, d), n * h, param_dtype)
        self.query_norm = RMSNorm((*stack, h), config.norm_eps, param_dtype)
        self.key_norm = RMSNorm((*stack, h), config.norm_eps, param_dtype)
        self.layer_type = layer_type
        self.window = config.window if layer_type == LOCAL else None
        self.scale = config.query_scale**-0.5

    def __call__(self, x_BxTxD, context: _Context, cache=None, index_BxR=None):
        angles = context.angles[self.layer_type]
        k, v = linear(self, "key", x_BxTxD), linear(self, "value", x_BxTxD)
        q = linear(self, "query", take(x_BxTxD, index_BxR))
        q = rope(self.query_norm(q), tuple(take(angle, index_BxR) for angle in angles))
        k = rope(self.key_norm(k), angles)
        if cache is not None:
            cache = tuple(constrain(_write(*pair, context.slots), *CACHE_AXES) for pair in zip(cache, (k, v), strict=True))
        if cache is not None and not context.empty:
            heads = attention.attend_cache(q, *cache, take(context.slots, index_BxR), self.window, self.scale)
        elif index_BxR is not None:
            heads = checkpoint_name(sequence.attend_from(q, index_BxR, k, v, context.segment_ids, self.window, self.scale), HEADS)
        elif self.kernel.name == "xla":
            heads = checkpoint_name(sequence.attend(q, k, v, context.segment_ids, self.window, self.scale), HEADS)
        else:
            heads = sharded.attend(self.kernel, q, k, v, context.segment_ids, self.window, self.scale)
        return linear(self, "output", heads.reshape(*heads.shape[:2], -1)), cache


def take(x_BxTx: jax.Array, index_BxR: jax.Array | None) -> jax.Array:
    """The tokens `index_BxR` of each row, or all tokens without an index. With an index, `x_BxTx` may be one row (B = 1) for all."""
    if index_BxR is None:
        return x_BxTx
    x_BxTx = jnp.broadcast_to(x_BxTx, (index_BxR.shape[0], *x_BxTx.shape[1:]))
    return sequence.take(x_BxTx, index_BxR)


def _write(slots_BxKxSxH: jax.Array, new_BxTxKxH: jax.Array, slots_BxT: jax.Array) -> jax.Array:
    """Writes each row's T new entries from the row's first slot on."""
    update = jax.vmap(lambda row, new, start: jax.lax.dynamic_update_slice_in_dim(row, new, start, axis=1))
    return update(slots_BxKxSxH, new_BxTxKxH.swapaxes(1, 2).astype(slots_BxKxSxH.dtype), slots_BxT[:, 0])


class MLP(nnx.Module):
    """gelu(x gate) * (x up), then down."""

    lora = None

    def __init__(self, config: Gemma3Config, stack: tuple[int, ...], rngs: nnx.Rngs, param_dtype):
        d, f = config.width, config.mlp_width
        self.gate = matrix(rngs, stack, (d, f), d, param_dtype)
        self.up = matrix(rngs, stack, (d, f), d, param_dtype)
        self.down = matrix(rngs, stack, (f, d), f, param_dtype)

    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        gate, up = linear(self, "gate", x_BxTxD), linear(self, "up", x_BxTxD)
        return linear(self, "down", jax.nn.gelu(gate, approximate=True) * up)


class Block(nnx.Module):
    """One layer: attention and MLP, each between two norms and added to the residual stream."""

    def __init__(self, config: Gemma3Config, layer_type: str, stack: tuple[int, ...], rngs: nnx.Rngs, param_dtype):
        norm = (*stack, config.width), config.norm_eps, param_dtype
        self.pre_attention_norm = RMSNorm(*norm)
        self.attention = Attention(config, layer_type, stack, rngs, param_dtype)
        self.post_attention_norm = RMSNorm(*norm)
        self.pre_mlp_norm = RMSNorm(*norm)
        self.mlp = MLP(config, stack, rngs, param_dtype)
        self.post_mlp_norm = RMSNorm(*norm)

    def __call__(self, x_BxTxD, context: _Context, cache=None, index_BxR=None):
        """The new residual stream, for only the tokens `index_BxR` if given, and the cache."""
        heads, cache = self.attention(self.pre_attention_norm(x_BxTxD), context, cache, index_BxR)
        x = take(x_BxTxD, index_BxR) + self.post_attention_norm(heads)
        x = x + self.post_mlp_norm(self.mlp(self.pre_mlp_norm(x)))
        return (x if index_BxR is not None else constrain(x, "batch", "tokens", None)), cache


class Gemma3(nnx.Module):
    """The text model. Calls return hidden states; `logits` converts selected ones to logits over the vocabulary.

    `groups` contains the scanned layers, as one Block for each layer of a group, with a leading axis over groups. `tail`
    contains the other layers.
    """

    def __init__(self, config: Gemma3Config, *, rngs: nnx.Rngs, dtype=jnp.float32, param_dtype=jnp.float32, remat: Remat = "none"):
        """`dtype`: dtype of activations. `param_dtype`: dtype of parameters. `remat`: what is computed again (`mira_jax.models.remat`)."""
        period, groups = config.grouping
        types = config.layer_types
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.kept = kept(remat)
        self.embedding = matrix(rngs, (), (config.vocabulary_size, config.width), config.width, param_dtype)
        self.groups = nnx.List([Block(config, types[i], (groups,), rngs, param_dtype) for i in range(period)])
        self.tail = nnx.List([Block(config, types[i], (), rngs, param_dtype) for i in range(period * groups, config.layers)])
        self.norm = RMSNorm((config.width,), config.norm_eps, param_dtype)

    def __call__(
        self,
        tokens_BxT: jax.Array,
        positions_BxT: jax.Array | None = None,
        segment_ids_BxT: jax.Array | None = None,
        cache: Cache | None = None,
        index_BxR: jax.Array | None = None,
    ):
        """The final hidden states, normalised, BxTxD.

        Args:
            tokens_BxT: token ids.
            positions_BxT: for RoPE. Default: 0, 1, ..., or with a cache the positions after the tokens that each row
                contains.
            segment_ids_BxT: tokens attend only to their own segment. 0 is padding, whose output is undefined. With a cache,
                each row is one segment, padded on the right.
            cache: keys and values of previous tokens. If given, the result is (hidden, cache). It must have T free slots
                after the longest row, padding included. The model must not scan over layers (`unscan`).
            index_BxR: return the states of only these tokens of each row, BxRxD. The last layer then computes only these.
        """
        length = tokens_BxT.shape[1]
        slots = None
        if cache is not None:
            slots = cache.lengths_B[:, None] + jnp.arange(length, dtype=jnp.int32)
        if positions_BxT is None:
            positions_BxT = jnp.arange(length, dtype=jnp.int32)[None] if slots is None else slots
        config = self.config
        context = _Context(
            segment_ids_BxT,
            {
                kind: rope_angles(positions_BxT, config.head_dim, base, factor)
                for kind, base, factor in (
                    (LOCAL, config.rope_base_local, 1.0),
                    (GLOBAL, config.rope_base_global, config.rope_factor_global),
                )
                if kind in config.layer_types
            },
            slots,
            empty=cache is not None and cache.empty,
        )
        # The embedding is sharded by columns. Each device looks up its columns for the rows of all devices in the group,
        # which then exchange rows for columns. Gathering the embedding, or the rows, would be far more expensive.
        x = constrain(look_up(self.embedding[...], tokens_BxT), "copies", "tokens", "width")
        x = x.astype(self.dtype) * jnp.asarray(config.width**0.5, self.dtype)
        x = constrain(x, "batch", "tokens", None)
        assert cache is None or not self.groups, "a scan would copy the cache in every step: unscan the model"
        x = self._scan_groups(x, context)
        x, layers = self._run(self.tail, x, context, None if cache is None else cache.layers, index_BxR)
        if not self.tail:
            x = take(x, index_BxR)
        hidden = self.norm(x)
        if cache is None:
            return hidden
        added = length if segment_ids_BxT is None else jnp.sum(segment_ids_BxT != 0, axis=1, dtype=jnp.int32)
        return hidden, Cache(layers, cache.lengths_B + added)

    def logits(self, hidden_xD: jax.Array) -> jax.Array:
        """Vocabulary logits for hidden states of any leading shape, fp32."""
        return unembed(hidden_xD, self.embedding[...].astype(hidden_xD.dtype))

    def init_cache(self, batch: int, length: int, dtype=None) -> Cache:
        """An empty cache with `length` slots per row. Padding of the prompt counts."""
        return init_cache(self.config, batch, length, dtype or self.dtype)

    def _run(self, blocks: Sequence[Block], x, context: _Context, caches, index_BxR=None):
        """Applies blocks in order. The last one returns only the tokens `index_BxR`."""
        new = []
        for i, block in enumerate(blocks):
            index = index_BxR if i == len(blocks) - 1 else None
            call = lambda block, x, cache, index=index: block(x, context, cache, index)  # noqa: E731
            x, cache = rematerialised(call, self.kept)(block, x, None if caches is None else caches[i])
            new.append(cache)
        return x, new

    def _scan_groups(self, x, context: _Context):
        if not self.groups:
            return x
        return jax.lax.scan(lambda x, blocks: (self._run(blocks, x, context, None)[0], None), x, self.groups)[0]


def use_kernels(model: nnx.Module, kernels: Kernels) -> nnx.Module:
    """Sets the implementations of attention of a model, a `Gemma3` or a `Critic`, and returns it."""
    trunk: Gemma3 = getattr(model, "trunk", model)
    for block in (*trunk.groups, *trunk.tail):
        block.attention.kernel = kernels[block.attention.layer_type]
    return model


def unscan(model: Gemma3) -> Gemma3:
    """Gives every layer parameters of its own, in place, so that no loop runs over layers. Returns the model.

    In decoding, a scan copies the parameters and the cache of each layer out of their stacks. This takes several times longer than the
    layer itself, which reads them once. Memory for the parameters of one slot of the group is needed in addition.
    """
    stacked, slots = list(model.groups), []
    model.groups = nnx.List([])
    while stacked:
        graph, state = nnx.split(stacked.pop(0))
        leaves, tree = jax.tree.flatten(state)
        del state
        apart = [unstack(leaves.pop(0)) for _ in range(len(leaves))]
        slots.append([nnx.merge(graph, jax.tree.unflatten(tree, own)) for own in zip(*apart, strict=True)])
    model.tail = nnx.List([*(block for group in zip(*slots, strict=True) for block in group), *model.tail])
    model.config = dataclasses.replace(model.config, scan_layers=False)
    return model


def unstack(array: jax.Array) -> tuple[jax.Array, ...]:
    """The slices of an array along its first axis, which is not sharded."""
    where = array.sharding
    if isinstance(where, jax.sharding.NamedSharding):
        where = jax.sharding.NamedSharding(where.mesh, jax.sharding.PartitionSpec(*where.spec[1:]))
    return _slices(where)(array)


@functools.cache
def _slices(where: jax.sharding.Sharding) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    return jax.jit(lambda array: tuple(array), out_shardings=where)


def init_cache(config: Gemma3Config, batch: int, length: int, dtype) -> Cache:
    """An empty cache of a model of these sizes."""
    shape = batch, config.kv_heads, length, config.head_dim

    def zeros() -> tuple[jax.Array, jax.Array]:
        keys, values = (constrain(jnp.zeros(shape, dtype), *CACHE_AXES) for _ in range(2))
        return keys, values

    return Cache([zeros() for _ in range(config.layers)], jnp.zeros((batch,), jnp.int32), empty=True)


@jax.custom_vjp
def look_up(embedding_VxD: jax.Array, tokens_BxT: jax.Array) -> jax.Array:
    """The rows of the embedding, BxTxD. Its gradient is summed in fp32, because a token may occur thousands of times."""
    return embedding_VxD[tokens_BxT]


def _look_up_backward(residuals, gradient_BxTxD):
    embedding_VxD, tokens_BxT = residuals
    _, transpose = jax.vjp(lambda embedding: embedding[tokens_BxT], embedding_VxD.astype(jnp.float32))
    return transpose(gradient_BxTxD.astype(jnp.float32))[0].astype(embedding_VxD.dtype), None


look_up.defvjp(lambda embedding, tokens: (embedding[tokens], (embedding, tokens)), _look_up_backward)


@jax.custom_vjp
def unembed(hidden_xD: jax.Array, embedding_VxD: jax.Array) -> jax.Array:
    """hidden embedding^T, fp32.

    For bfloat16 inputs, the gradient of the logits is rounded to bfloat16 before its two products, which accumulate in fp32.
    An fp32 gradient would make these, the largest products of the model, fp32 products, which are many times slower.
    """
    return jnp.einsum("...d,vd->...v", hidden_xD, embedding_VxD, preferred_element_type=jnp.float32)


def _unembed_backward(residuals, gradient_xV):
    hidden_xD, embedding_VxD = residuals
    gradient_xV = gradient_xV.astype(hidden_xD.dtype)
    d_hidden = jnp.einsum("...v,vd->...d", gradient_xV, embedding_VxD, preferred_element_type=jnp.float32)
    d_embedding = jnp.einsum("...v,...d->vd", gradient_xV, hidden_xD, preferred_element_type=jnp.float32)
    return d_hidden.astype(hidden_xD.dtype), d_embedding.astype(embedding_VxD.dtype)


unembed.defvjp(lambda hidden, embedding: (unembed(hidden, embedding), (hidden, embedding)), _unembed_backward)


def matrix(rngs: nnx.Rngs, stack: tuple[int, ...], shape: tuple[int, ...], fan_in: int, param_dtype) -> nnx.Param:
    """A normally distributed matrix with standard deviation fan_in^-0.5. The axes `stack` precede its own axes."""
    values = jax.random.normal(rngs.params(), (*stack, *shape), jnp.float32) * fan_in**-0.5
    return nnx.Param(values.astype(param_dtype))
