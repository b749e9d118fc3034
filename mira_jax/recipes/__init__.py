"""The recipes: what can be trained. Each recipe is a short module that implements the protocol in `mira_jax.recipes.base`.

A recipe is a frozen dataclass whose fields are the options of the config's `recipe` section:
`recipe: {name: sft, normalize: token}` builds `SFT(normalize="token")`, and
`recipe: {name: actor, objective: mira, beta: 0.2}` builds `Mira(beta=0.2)`.
"""

import importlib
from typing import Any

from mira_jax import config as configs
from mira_jax.errors import UserError
from mira_jax.recipes.base import Recipe
from mira_jax.recipes.objectives import OBJECTIVES

RECIPES: dict[str, str | dict[str, str]] = {
    "sft": "mira_jax.recipes.objectives.sft:SFT",
    "critic": "mira_jax.recipes.critic:CriticRecipe",
    "orm": "mira_jax.recipes.orm:ORM",
    "checker": "mira_jax.recipes.checker:Checker",
    "actor": OBJECTIVES,
}
"""`recipe.name` to module and class, imported on first use. If there are several objectives, `recipe.objective` selects one."""
DEFAULT_OBJECTIVE = "mira"


def recipe_class(options: dict[str, Any]) -> type[Recipe]:
    """The class selected by `name` and, if there are several objectives, by `objective`.

    Raises:
        UserError: the name is missing, or the name or objective is unknown.
    """
    name = options.get("name")
    if name not in list(RECIPES):
        raise UserError(f"recipe.name: {name!r} is none of {', '.join(RECIPES)}")
    place = RECIPES[name]
    if isinstance(place, dict):
        objective = options.get("objective", DEFAULT_OBJECTIVE)
        if objective not in list(place):
            raise UserError(f"recipe.objective: {objective!r} is none of {', '.join(place)}")
        place = place[objective]
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_recipe(options: dict[str, Any]) -> Recipe:
    """Builds the recipe selected by `name` and `objective`, with the other keys as its options.

    Raises:
        UserError: the name is missing, the name or objective is unknown, or the recipe does not have an option.
    """
    made = recipe_class(options)
    identity = _identity(made)
    return configs.build(made, {key: value for key, value in options.items() if key not in identity}, prefix="recipe.")


def options_of(recipe: Recipe) -> dict[str, Any]:
    """The inverse of `make_recipe`, with defaults filled in."""
    return {**_identity(type(recipe)), **configs.to_tree(recipe)}


def _identity(made: type[Recipe]) -> dict[str, str]:
    """The keys of the `recipe` section that select a class."""
    return {key: getattr(made, key) for key in ("name", "objective") if hasattr(made, key)}
