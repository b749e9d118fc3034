"""The phases that ship: every stage's config loads, on every kind of hardware."""

import importlib
import json
from pathlib import Path

import pytest
import yaml

from mira_jax import phases
from mira_jax.config import load, to_tree
from mira_jax.recipes import make_recipe
from mira_jax.stages import PhasesConfig, expand
from mira_jax.train import TrainConfig

TWELVE = "configs/12b/phases.yaml"


def stages(*paths, **sets):
    config = load(PhasesConfig, list(paths), [f"{key}={value}" for key, value in sets.items()])
    return config, {stage.name: stage for stage in expand(config)}


def built(stage):
    sets = stage.set | ({stage.serve.url: "http://127.0.0.1:1/v1"} if stage.serve else {})
    command = importlib.import_module(stage.module).COMMAND
    return load(command.config_type, stage.configs, [f"{key}={json.dumps(value)}" for key, value in sets.items()])


@pytest.mark.parametrize(
    "paths",
    [["configs/phases/tours.yaml"], [TWELVE], [TWELVE, "configs/12b/phases_141gb.yaml"], [TWELVE, "configs/12b/phases_pod.yaml"]],
)
def test_every_stage_loads(paths, tmp_path, monkeypatch):
    sets = {"values.policy": tmp_path / "sft", "values.critic": tmp_path / "critic"} if "tours" in paths[0] else {}
    config, made = stages(*paths, out=tmp_path / "run", **sets)
    for name, stage in made.items():
        assert list(phases._problems(stage, {stage.serve.url: "http://127.0.0.1:1/v1"} if stage.serve else {})) == [], name
    for name in ("OPENAI_API_KEY", "WA_SHOPPING_USER"):
        monkeypatch.delenv(name, raising=False)
    missing = phases.missing_needs(config)
    if paths[0] == TWELVE:
        assert any("models/gemma-3-12b-it does not exist" in line for line in missing)
        assert any("OPENAI_API_KEY is not set" in line for line in missing)
    else:
        assert [line.partition(" does")[0] for line in missing] == [f"{tmp_path}/sft", f"{tmp_path}/critic"]


def test_every_stage_of_the_example_of_your_own_site_loads(tmp_path):
    """All stages on the suite have the same suite."""
    config, made = stages("examples/your_site/phases.yaml", out=tmp_path)
    assert phases.missing_needs(config) == []
    configs = {name: built(stage) for name, stage in made.items()}
    assert len({json.dumps(to_tree(one.suite), sort_keys=True) for one in configs.values() if hasattr(one, "suite")}) == 1
    tasks = json.loads(Path("examples/your_site/tasks.json").read_text())
    assert configs["explore"].episodes == sum(task["split"] == "train" for task in tasks)
    assert configs["evaluate-mira"].episodes == sum(task["split"] == "test" for task in tasks)


def test_the_example_that_is_labelled_by_models_has_the_same_stages_besides(tmp_path):
    config, made = stages("examples/your_site/phases_by_models.yaml", out=tmp_path)
    assert phases.missing_needs(config) == []
    _, by_rules = stages("examples/your_site/phases.yaml", out=tmp_path)
    assert [name for name in made if name != "subgoals"] == list(by_rules)
    for name in ("demonstrate", "sft", "explore", "critic-0", "critic-1", "score", "mira"):
        assert to_tree(built(made[name])) == to_tree(built(by_rules[name])), name


def test_every_stage_of_the_planner_experiment_loads(tmp_path):
    """Both arms have the same demonstrations, prompts and test tasks."""
    config, made = stages("configs/planner/seed.yaml", out=tmp_path, seed=3)
    assert phases.missing_needs(config) == []
    configs = {name: built(stage) for name, stage in made.items()}
    for one in ("demonstrate", "sft", "evaluate"):
        without, planned = (to_tree(configs[f"{one}-{arm}"]) for arm in ("without", "with"))
        different = {key for key in without if without[key] != planned[key]}
        assert different <= {"out", "planner", "data", "policy"}, different
    assert configs["evaluate-with"].episodes == 300 and configs["demonstrate-with"].policy.habits
    assert configs["sft-with"].data.prompt == configs["evaluate-with"].policy.prompt == configs["evaluate-without"].policy.prompt


@pytest.mark.parametrize("name", ["demo", "shop"])
def test_every_stage_of_the_demo_and_of_the_shop_loads(name, tmp_path):
    """The policy is evaluated with the prompts that it learned from, and on tasks of the same templates."""
    config, made = stages(f"configs/{name}/phases.yaml", out=tmp_path)
    assert phases.missing_needs(config) == []
    configs = {name: built(stage) for name, stage in made.items()}
    assert configs["sft"].data.prompt == configs["evaluate-mira"].policy.prompt == configs["explore"].policy.prompt
    assert configs["demonstrate"].templates == configs["explore"].templates == configs["evaluate-mira"].templates


@pytest.mark.parametrize(
    "paths", [["configs/demo/phases.yaml"], ["configs/phases/tours.yaml"], ["configs/study/seed.yaml", "configs/study/method.yaml"]]
)
def test_a_policy_that_keeps_to_a_support_reads_tables_that_have_it(paths, tmp_path):
    method = {"values.config": "configs/study/methods/recommended.yaml", "values.data": tmp_path}
    made = [stage for path in paths for stage in stages(path, out=tmp_path, **(method if "method" in path else {}))[1].values()]
    scores = [built(stage) for stage in made if stage.module == "mira_jax.score"]
    stored = {f"{score.out}/policy.npz": score.alternatives for score in scores if score.policy}
    actors = [built(stage) for stage in made if stage.module == "mira_jax.train"]
    tables = [
        (table, make_recipe(actor.recipe)) for actor in actors if actor.recipe.get("support_weight") for table in actor.data.side_tables
    ]
    assert any(table in stored for table, _ in tables)
    assert all(stored[table] >= recipe.support_tokens for table, recipe in tables if table in stored)


STUDY = Path("configs/study")
METHODS = [path for series in ("methods", "common") for path in sorted((STUDY / series).glob("*.yaml")) if path.stem != "search"]
SEARCHES = {"methods": STUDY / "search.yaml", "common": STUDY / "common" / "search.yaml"}


@pytest.mark.parametrize("name", ["policy", "seed", "baseline", "confirm", "value"])
def test_every_stage_of_the_study_loads(name, tmp_path):
    for stage in stages(f"configs/study/{name}.yaml", out=tmp_path)[1].values():
        built(stage)


@pytest.mark.parametrize("path", METHODS, ids=str)
def test_every_method_of_the_study_has_a_recipe(path, tmp_path):
    """It differs from the others in its recipe and its epochs alone, and reads what the policy read in rollouts."""
    _, made = stages("configs/study/method.yaml", out=tmp_path, **{"values.config": str(path)})
    actor, evaluate = built(made["actor"]), built(made["evaluate"])
    explore = built(stages("configs/study/seed.yaml", out=tmp_path)[1]["explore"])
    assert actor.data.prompt == evaluate.policy.prompt == explore.policy.prompt
    make_recipe(actor.recipe)
    plain = load(TrainConfig, ["configs/study/actor.yaml"])
    for setting in yaml.safe_load(SEARCHES[path.parent.name].read_text())[path.stem]:
        make_recipe(actor.recipe | {key: value for key, value in setting.items() if key != "epochs"})
    differing = [key for key in ("optimizer", "model", "lora", "checkpoint") if getattr(actor, key) != getattr(plain, key)]
    assert not differing


@pytest.mark.parametrize(
    ("series", "others"),
    [
        ("methods", {"filtered_bc": 7, "prefix_bc": 7, "webrl_code": 7, "recommended": 16, "mira_supported": 4, "webrl_supported": 4}),
        ("common", {"filtered_bc": 4, "prefix_bc": 5, "recommended": 11}),
    ],
)
def test_the_methods_of_a_search_have_the_same_budget(series, others):
    """Six settings, or as the comment in search.yaml says."""
    search = yaml.safe_load(SEARCHES[series].read_text())
    assert {name: len(settings) for name, settings in search.items()} == {
        name: {"methods": 6, "common": 4}[series] for name in search
    } | others
    for settings in search.values():
        assert len({frozenset(setting) for setting in settings}) == 1, "every setting names what is searched"


@pytest.mark.parametrize(
    ("overlay", "row_length", "adapters", "rate", "param_dtype"),
    [
        ([], 16384, True, 2e-5, "bfloat16"),
        (["configs/12b/phases_141gb.yaml"], 8192, False, 1e-6, "bfloat16"),
        (["configs/12b/phases_pod.yaml"], 16384, False, 1e-6, "float32"),
    ],
)
def test_the_settings_of_a_12b_run_agree_with_each_other(overlay, row_length, adapters, rate, param_dtype):
    config, made = stages(TWELVE, *overlay)
    assert config.phases == 6 and len(made) == 1 + 6 * 13
    actor, explore, evaluate = built(made["actor-2"]), built(made["explore-2"]), built(made["evaluate-2"])
    scores = [built(made[name]) for name in ("reference-2", "score-2", "score-trial-2")]
    assert actor.data.row_length == row_length and (actor.lora is not None) is adapters
    assert actor.optimizer.learning_rate == rate and actor.epochs == 1
    assert (actor.recipe["alpha"], actor.recipe.get("lambda_")) == (0.3, 0.5)
    # The policy reads in rollouts what it is trained on, and a prompt and its response fit a row.
    for rollout in (explore, evaluate):
        assert rollout.policy.prompt == actor.data.prompt
        assert rollout.policy.prompt.max_tokens + rollout.policy.max_tokens <= row_length
        assert rollout.limits.horizon == 30
    assert (explore.policy.temperature, evaluate.policy.temperature, evaluate.episodes) == (1.0, 0.0, 165)
    # Reference log-probs have the dtypes of the training.
    assert {(score.dtype, score.param_dtype) for score in scores} == {(actor.model.dtype, actor.model.param_dtype)}
    assert actor.model.param_dtype == param_dtype
    # pi_ref is the policy of the previous phase, and rolled out this phase.
    assert actor.init_from == explore.policy.tokenizer == made["explore-2"].serve.model == scores[0].policy == "runs/12b/phase-1/actor"
    assert built(made["replay-3"]).episodes == ["runs/12b/phase-1/labelled", "runs/12b/phase-2/labelled"]
    assert built(made["replay-3"]).most == 2.0
    choose = built(made["choose-1"])
    assert (choose.lowest, choose.highest, choose.count) == (0.05, 0.75, 500)
