import dataclasses

import pytest

from mira_jax import config as configs
from mira_jax.recipes import make_recipe
from mira_jax.sizing.inference import ScoreSizes, ServeSizes, make_scoring, make_serving
from mira_jax.train import TrainConfig

SIZES = {"vocabulary_size": 96, "width": 32, "layers": 7, "query_heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 64, "window": 16}


def config(**keys):
    return configs.build(TrainConfig, {"model": {"sizes": SIZES}, "data": {"row_length": 64}, "recipe": {"name": "sft"}} | keys)


def serving(given=None, **sizes):
    given = given or config()
    return make_serving(given, make_recipe(given.recipe), ServeSizes(**sizes))


def test_a_server_holds_parameters_cache_and_prefixes():
    plan = serving(rows=3, max_length=1000, prefix_cache_mb=2, dtype="bfloat16")
    # 1,000 tokens take 1,024 slots; each has keys and values of 2 heads of 8 in 7 layers. The lengths take 4 bytes a row.
    slots = 2 * 3 * 7 * 2 * 2 * 8
    assert plan.held == {"parameters": 2 * plan.model.parameters, "cache": 1024 * slots + 12, "prefix cache": 2 * 2**20}
    # Before it grew to 1,024 slots it had 768.
    assert plan.growth == 768 * slots + 12
    assert serving(rows=3, max_length=512).growth == 0


def test_adapters_of_a_server_are_float32():
    adapted = serving(config(lora={"rank": 2}), dtype="bfloat16")
    plain = serving(dtype="bfloat16")
    added = (adapted.held["parameters"] - plain.held["parameters"]) / 4
    # Rank 2: 2 (inputs + outputs) for query, key, value, output, gate, up, down, in 7 layers.
    assert added == 7 * 2 * ((32 + 32) + 2 * (32 + 16) + (32 + 32) + 2 * (32 + 64) + (64 + 32))


def test_decoding_reads_the_parameters_and_of_local_layers_the_window():
    decode = serving(rows=3, max_length=1000).programs[1]
    # 6 of 7 layers are local, with 16 of 1,024 slots; and the logits, four times.
    cache = 4 * 3 * 2 * 2 * 8 * (6 * 16 + 1024)
    assert decode.hbm_bytes == pytest.approx(4 * serving().model.parameters + cache + 16 * 3 * 96, rel=1e-4)
    assert decode.working == 16 * 3 * 96
    # The products of one step of the loop: all parameters but the norms, and attention over every slot that is read.
    attention = 4 * 4 * 8 * (6 * 16 + 1024)
    matrices = 2 * (7 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 96 * 32)
    assert decode.done == decode.needed == 3 * (matrices + attention)


def test_prefill_computes_at_least_what_it_needs():
    prefill = serving(max_length=1000).programs[0]
    assert prefill.tokens == 1024
    assert prefill.needed <= prefill.done <= 3 * prefill.needed


def test_scoring_holds_no_gradients_and_rows_default_to_those_of_training():
    given = config()
    recipe = make_recipe(given.recipe)
    plan = make_scoring(given, recipe, ScoreSizes(rows=2, param_dtype="bfloat16"), 20, 10)
    assert plan.held == {"parameters": 2 * plan.model.parameters}
    (program,) = plan.programs
    assert program.arguments[1]["tokens"].shape == (2, 64)
    longer = make_scoring(given, recipe, dataclasses.replace(ScoreSizes(), row_length=128), 20, 10).programs[0]
    assert longer.arguments[1]["tokens"].shape == (8, 128)
    assert longer.tokens == 8 * 4 * 29
