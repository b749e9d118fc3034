"""Demonstrations for the model that writes subgoals, by category of site, from a YAML file that users edit."""

import hashlib
import random
from pathlib import Path
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta

from mira_jax import config
from mira_jax.errors import UserError, first_line
from mira_jax.trajectories.records import Task

SHOWN = 2
"""Number of examples shown for each task, as in MiRA (arXiv 2603.19685)."""
Text = Annotated[str, Meta(min_length=1)]


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instruction: Text
    subgoals: Annotated[list[Text], Meta(min_length=1)]


class Category(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sites: list[str]
    """Names of sites, as tasks have them. Empty: any other site."""
    examples: Annotated[list[Example], Meta(min_length=SHOWN)]


class Examples:
    """The content of the file."""

    def __init__(self, path: str | Path):
        """Raises UserError: the file is missing or is no mapping of categories, or several of them have the sites of others."""
        try:
            data = config.find(Path(path)).read_bytes()
            self.categories = msgspec.convert(yaml.safe_load(data), dict[str, Category])
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, msgspec.ValidationError, ValueError) as error:
            raise UserError(f"{path}: not a file of examples: {first_line(error)}; see configs/subgoals/examples.yaml") from None
        self.sha256 = hashlib.sha256(data).hexdigest()
        if sum(not category.sites for category in self.categories.values()) != 1:
            raise UserError(f"{path}: give one category no sites; it has the examples for all other sites")

    def category(self, task: Task) -> Category:
        """The first category that names a site of the task, else the one without sites."""
        named = (category for category in self.categories.values() if set(category.sites) & set(task.sites))
        return next(named, None) or next(category for category in self.categories.values() if not category.sites)

    def draw(self, task: Task, seed: int) -> list[Example]:
        return random.Random(f"{seed}/{task.id}").sample(self.category(task).examples, SHOWN)
