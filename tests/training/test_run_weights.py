import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from mira_jax.errors import UserError
from mira_jax.models.config import Gemma3Config
from mira_jax.models.weights import shapes
from mira_jax.training import checkpoint as checkpoints
from mira_jax.training import load
from mira_jax.training.run_weights import RunWeights
from mira_jax.training.state import TrainState


def test_reads_what_training_saved_one_parameter_at_a_time(tmp_path):
    config = Gemma3Config(40, 16, 14, 2, 1, 8, 24)
    draw = np.random.default_rng(0)
    expected = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes(config).items()}
    params = jax.tree.map(jnp.asarray, unflatten_dict(expected))
    run = checkpoints.Checkpoints(tmp_path, keep=1)
    run.save(3, TrainState(params, {}, jnp.int32(3)), iter(grain.MapDataset.range(3).to_iter_dataset()))
    run.close()
    load.write_model_json(tmp_path, config, ())
    weights = RunWeights(tmp_path)
    assert weights.config.grouping == (6, 2) and set(weights.stored) == set(expected)
    for name, values in expected.items():
        assert weights.stored[name] == jax.ShapeDtypeStruct(values.shape, jnp.float32)
        np.testing.assert_array_equal(weights.read(name), values)
    narrow = weights.read(("groups", 4, "mlp", "down"), jnp.bfloat16)
    np.testing.assert_array_equal(narrow, expected["groups", 4, "mlp", "down"].astype(jnp.bfloat16))


def test_critics_and_runs_without_a_checkpoint_are_refused(tmp_path):
    config = Gemma3Config(40, 16, 1, 2, 1, 8, 24)
    load.write_model_json(tmp_path, config, ("value",))
    with pytest.raises(UserError, match="a critic"):
        RunWeights(tmp_path)
    load.write_model_json(tmp_path, config, ())
    with pytest.raises(UserError, match="no checkpoint yet"):
        RunWeights(tmp_path)
