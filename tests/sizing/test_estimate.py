import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mira_jax import config as configs
from mira_jax.errors import UserError
from mira_jax.models.sharding import MeshConfig
from mira_jax.recipes import make_recipe
from mira_jax.sizing.chips import parse_topology
from mira_jax.sizing.estimate import Estimator, residuals
from mira_jax.sizing.plan import abstract_mesh, make_plan, make_workload
from mira_jax.sizing.search import meshes
from mira_jax.train import TrainConfig

SIZES = {"vocabulary_size": 96, "width": 32, "layers": 2, "query_heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 64, "window": 16}


def plan(recipe="actor", rows=8, parts=1, **keys):
    tree = {"recipe": {"name": recipe}, "model": {"sizes": SIZES, **keys.pop("model", {})}, "data": {"rows": rows, "row_length": 64}}
    config = configs.build(TrainConfig, tree | keys)
    made = make_recipe(config.recipe)
    return make_plan(config, made, make_workload(made, rows, parts, 64, 20, 10))


def memory(step, **axes):
    mesh = abstract_mesh(MeshConfig(**{"fsdp": 1, **axes}), 1 if not axes else 8)
    return Estimator(step).on(mesh).memory


def test_rows_are_packed_as_real_ones_are():
    actor, critic = plan().workload, plan("critic").workload
    # 20 + 10 - 1 tokens of a step fit twice in 64; prompts alone three times.
    assert (len(actor.texts), actor.tokens) == (2, 8 * 58)
    assert (len(critic.texts), critic.tokens) == (3, 8 * 60)
    assert actor.arrays["response_index"].shape == (24,) and critic.arrays["response_index"].shape == (0,)


def test_the_columns_that_a_loss_reads_are_in_the_batch():
    assert {"advantage", "reference_log_prob"} <= set(plan().part(2))
    assert {"success", "progress", "progress_weight"} <= set(plan("critic").part(2))


def test_state_takes_4_bytes_a_parameter_and_8_for_the_moments():
    step = plan()
    found, count = memory(step), step.model.parameters
    assert found.parameters == found.gradients == 4 * count
    assert found.optimizer == pytest.approx(8 * count, abs=64)
    halves = memory(plan(model={"param_dtype": "bfloat16"}, optimizer={"state_dtype": "bfloat16"}))
    assert (halves.parameters, halves.gradients) == (2 * count, 2 * count)
    assert halves.optimizer == pytest.approx(4 * count, abs=64)


def test_fsdp_splits_the_matrices_and_leaves_the_norms_whole():
    step = plan()
    norms = 4 * (2 * (4 * 32 + 2 * 8) + 32)
    assert memory(step, fsdp=8).parameters == (memory(step).parameters - norms) // 8 + norms


def test_adapters_alone_have_gradients_and_moments():
    step = plan(lora={"rank": 2})
    # Rank 2 beside every matrix of 2 layers: A has the inputs, B the outputs.
    attention, mlp = (32 + 32) + 2 * (32 + 16) + (32 + 32), 2 * (32 + 64) + (64 + 32)
    adapters = 4 * 2 * 2 * (attention + mlp)
    found = memory(step)
    assert found.gradients == adapters
    assert found.parameters == 4 * step.model.parameters + adapters
    assert found.optimizer == pytest.approx(2 * adapters, abs=64)


def test_parts_take_less_for_activations_and_more_for_gradients():
    whole, parts = memory(plan()), memory(plan(parts=4))
    assert parts.activations < whole.activations / 3
    assert parts.gradients == 2 * whole.gradients


def test_block_remat_keeps_the_inputs_of_blocks_instead_of_what_is_in_them():
    none, block = memory(plan()), memory(plan(model={"remat": "block"}))
    assert block.activations < none.activations / 4
    # 2 inputs of 8 rows of 64 tokens of width 32, fp32, are the most of it.
    assert block.activations >= 2 * 8 * 64 * 32 * 4


def test_residuals_are_what_backward_reads():
    def loss(w, x):
        return jnp.sum(jnp.sin(x @ w) ** 2)

    w, x = jax.ShapeDtypeStruct((3, 5), jnp.float32), jax.ShapeDtypeStruct((7, 3), jnp.float32)
    kept = residuals(loss, w, x)
    assert {leaf.shape for leaf in kept if leaf.shape} == {(7, 5)}


def test_what_is_sent_follows_the_axes():
    step = plan(rows=16)
    sent = lambda **axes: Estimator(step).on(abstract_mesh(MeshConfig(**{"fsdp": 1, **axes}), 8)).sent  # noqa: E731
    assert set(sent(fsdp=8)) == {"fsdp"}
    assert set(sent(data=8)) == {"data"}
    assert set(sent(data=2, fsdp=2, tensor=2)) == {"data", "fsdp", "tensor"}
    # An all-reduce of 4-byte gradients among 8: 2 x 7/8 of them.
    assert sent(data=8)["data"] == pytest.approx(2 * 7 / 8 * 4 * step.model.parameters)


def test_meshes_use_all_chips_and_leave_heads_and_windows_whole():
    step = plan()
    found = [dataclasses.astuple(mesh) for mesh in meshes(step, parse_topology("v5e:2x4"))]
    assert (1, 8, 1, 1) in found and (2, 2, 2, 1) in found and (1, 2, 1, 4) in found
    assert not [mesh for mesh in found if mesh[2] > 2 or mesh[3] > 4]
    assert all(data * fsdp * tensor * sequence == 8 for data, fsdp, tensor, sequence in found)


def test_a_step_longer_than_a_row_is_refused():
    with pytest.raises(UserError, match=r"a step of 100 \+ 10 tokens is longer than a row of 64"):
        make_workload(make_recipe({"name": "actor"}), 8, 1, 64, 100, 10)
