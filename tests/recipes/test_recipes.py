"""From the `recipe` section of a config to a recipe, and back."""

import dataclasses
import inspect

import pytest

from mira_jax.errors import UserError
from mira_jax.recipes import make_recipe, options_of, recipe_class
from mira_jax.recipes.objectives import OBJECTIVES
from tests.recipes.objectives.scored import Batch, actor

SECTIONS = [{"name": "sft"}, {"name": "critic"}, {"name": "orm"}, *({"name": "actor", "objective": objective} for objective in OBJECTIVES)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.get("objective", section["name"]))
def test_a_recipe_says_how_it_is_named_in_a_config(section):
    recipe = make_recipe(section)
    assert {key: value for key, value in options_of(recipe).items() if key in ("name", "objective")} == section
    assert make_recipe(options_of(recipe)) == recipe


def test_the_default_objective_is_mira_s():
    assert recipe_class({"name": "actor"}) is recipe_class({"name": "actor", "objective": "mira"})


def test_options_are_the_config_s():
    kl = actor(objective="kl", lambda_=1, max_weight=None)
    assert (kl.objective, kl.lambda_, kl.max_weight) == ("kl", 1.0, None)
    assert make_recipe(options_of(kl)) == kl


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"beta": 0}, r"recipe\.beta"),
        ({"lambda_": 1.5}, r"recipe\.lambda_"),
        ({"objective": "ppo"}, r"recipe\.objective: 'ppo' is none of mira, kl, awr, digirl, filtered_bc, prefix_bc, webrl_code"),
        ({"objective": ["mira"]}, r"recipe\.objective: \['mira'\] is none of"),
        ({"at_end": "stop"}, "stop"),
        ({"objective": "kl", "max_weight": 0}, r"recipe\.max_weight"),
        ({"objective": "awr", "beta": -1}, r"recipe\.beta"),
        ({"objective": "awr", "gamma": 2}, r"recipe\.gamma"),
        ({"objective": "webrl_code", "gamma": 2}, r"recipe\.gamma"),
    ],
)
def test_values_out_of_range_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        actor(**wrong)


@pytest.mark.parametrize(
    "section, message",
    [
        ({"objective": "mira", "max_weigth": 5}, "unknown key recipe.max_weigth; did you mean recipe."),
        ({"objective": "filtered_bc", "beta": 0.5}, "unknown key recipe.beta; did you mean recipe.percentile"),
        ({"objective": "awr", "lambda": 0.5}, "unknown key recipe.lambda; did you mean recipe."),
    ],
)
def test_an_option_of_another_objective_is_refused(section, message):
    with pytest.raises(UserError, match=message):
        actor(**section)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_option_has_a_line_of_documentation(objective):
    made = recipe_class({"name": "actor", "objective": objective})
    source = "\n".join(inspect.getsource(base) for base in made.__mro__[:-1])
    for field in dataclasses.fields(made):
        _, _, after = source.partition(f"    {field.name}: ")
        assert after.split("\n", 2)[1].startswith('    """'), field.name


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "grpo"])  # it has a policy of its own to compare with
def test_every_objective_reports_how_far_the_policy_has_moved(policy, scored, reader, examples, objective):
    batch = Batch(actor(objective=objective), policy, reader, examples, scored)
    assert batch.metrics["nll_per_token"] == pytest.approx(-batch.log_prob.sum() / batch.tokens.sum(), rel=1e-4)
    assert batch.metrics["log_ratio"] == pytest.approx(1, abs=1e-4)
    assert (batch.metrics["moved_up"], batch.metrics["moved_down"]) == (1, 0)
