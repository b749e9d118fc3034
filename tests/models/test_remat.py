import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mira_jax.errors import UserError
from mira_jax.models.config import GLOBAL, LOCAL
from mira_jax.models.gemma3 import Gemma3
from mira_jax.sizing.flops import done
from tests.models.test_gemma3 import small, tokens_of


def gradient(remat, scanned):
    config = small(scanned, layers=3, layer_types=(LOCAL, LOCAL, GLOBAL), window=4)
    graph, state = nnx.split(Gemma3(config, rngs=nnx.Rngs(0), remat=remat))
    return jax.grad(lambda state: jnp.sum(jnp.sin(nnx.merge(graph, state)(tokens_of(2, 10))))), state


def test_no_setting_changes_the_gradient():
    function, state = gradient("none", True)
    plain = jax.tree.leaves(jax.jit(function)(state))
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in plain)
    for remat in ("block", "products", ["heads"], ["gate", "up", "key"]):
        function, state = gradient(remat, True)
        for leaf, expected in zip(jax.tree.leaves(jax.jit(function)(state)), plain, strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kept", "width"), [(["query"], 4 * 6), (["key", "value"], 2 * 2 * 6), (["gate", "up"], 2 * 24), (["output", "down"], 4 * 6 + 24)]
)
def test_what_is_kept_is_not_computed_again(kept, width):
    """By the FLOPs of the program: 2 x 2 rows x 10 tokens x 16 x `width` less in each of three layers."""

    def flops(remat):
        function, state = gradient(remat, False)
        return done(jax.make_jaxpr(function)(state))

    assert flops("block") - flops(kept) == 3 * 2 * 20 * 16 * width


def test_only_attention_is_computed_again_if_all_products_are_kept():
    flops = {remat: done(jax.make_jaxpr(gradient(remat, False)[0])(gradient(remat, False)[1])) for remat in ("none", "products")}
    # Two products over 10 x 10 pairs, 4 heads of 6, two rows and three layers.
    assert flops["products"] - flops["none"] == 3 * 2 * 2 * 2 * 10 * 10 * 4 * 6


def test_unknown_settings_are_refused():
    with pytest.raises(UserError, match=r"model\.remat: 'everything' is none of none, block, products, nor a list"):
        Gemma3(small(), rngs=nnx.Rngs(0), remat="everything")
    with pytest.raises(UserError, match=r"model\.remat: mlp: a list has some of query, key, value, heads"):
        Gemma3(small(), rngs=nnx.Rngs(0), remat=["mlp", "gate"])
