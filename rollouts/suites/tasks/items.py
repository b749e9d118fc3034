"""Tasks in WebArena's form, with a few keys of our own (docs/your-site.md). Nothing in them is evaluated."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories.actions import ParseError, parse
from mira_jax.trajectories.records import Task
from rollouts.suites import evaluations, evaluators, task_files
from rollouts.suites.evaluations import check_evaluation, check_reference_url
from rollouts.suites.evidence import LAST
from rollouts.suites.task_files import MAX_HORIZON

SUITE = "tasks"
SEVERAL = "several_sites"
UNUSED = frozenset({
    "require_login", "require_reset", "geolocation", "intent_template", "intent_template_id", "instantiation_dict", "old_task_id",
    "comments",
})  # fmt: skip
"""Keys of WebArena's tasks without effect here."""
STATE_MATCH = "state_match"
EVALUATORS = (*evaluations.KINDS, STATE_MATCH)
KEY = "suite.options.tasks"


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a milestone is done: every condition that is given holds of a step's action, or of the page or the sites' state after it."""

    url: str | None = None
    """The page's address contains this, by the rule of `url_match`."""
    path: str | None = None
    """The page's address without query is this. A * stands for any part between slashes."""
    text: str | None = None
    """The page's text contains this, in any case."""
    element: str | None = None
    """A line of the page that shows an element contains this, in any case."""
    state: dict[str, Any] | None = None
    """Path in the sites' state to its value, for example {"shop.cart.0.name": "lamp"}."""
    action: str | None = None
    """The step's action has this name, for example Click or exit, and did not fail."""
    target: str | None = None
    """The element of the step's action, as the page before the step shows it, contains this, in any case."""
    argument: str | None = None
    """The argument of the step's action is this, in any case."""


class Milestone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    """The subgoal, in words."""
    done: Check


class Item(msgspec.Struct, frozen=True):
    """One task."""

    task_id: str | int
    sites: Annotated[list[str], Meta(min_length=1)]
    start_url: str
    intent: str
    eval: dict[str, Any]
    """`eval_types` and their references, as in WebArena; `state_match` compares `state`, a mapping as in `Check.state`."""
    split: Literal["train", "validation", "test"] = "test"
    template: str = ""
    """Rates are reported by template. Default: the site, or several_sites."""
    horizon: Annotated[int, Meta(ge=1, le=MAX_HORIZON)] = 30
    """Maximum number of steps of an episode."""
    storage_state: str | msgspec.UnsetType | None = msgspec.UNSET
    """As in WebArena: the sites to log in to are in the file's name, `shop.forum_state.json`; null: none. Not given: all sites of the task
    that have a login."""
    milestones: list[Milestone] = []
    solution: list[str] = []
    """Responses of the scripted expert, one per step."""

    @property
    def id(self) -> str:
        return f"{SUITE}.{self.task_id}"

    def task(self) -> Task:
        template = self.template or (self.sites[0] if len(self.sites) == 1 else SEVERAL)
        return Task(
            id=self.id, suite=SUITE, sites=tuple(self.sites), template=template, split=self.split, seed=0,
            intent=self.intent, start_url=self.start_url, horizon=self.horizon,
        )  # fmt: skip

    def login_sites(self, logins: Mapping[str, Any]) -> list[str]:
        """The sites to log in to, of those that have a login."""
        if self.storage_state is msgspec.UNSET:
            return [site for site in self.sites if site in logins]
        if not self.storage_state:
            return []
        return Path(self.storage_state).name.removesuffix("_state.json").split(".")


def placeholder(site: str) -> str:
    return f"__{site.upper()}__"


def read_items(path: str, sites: Mapping[str, str]) -> dict[str, Item]:
    """The tasks by id, in the order of the files' names.

    Args:
        path: a file of tasks, or a folder of them (`task_files.read_tasks`).
        sites: site to address. Empty: the site is started for each episode.

    Raises:
        UserError: there are no tasks, or some are malformed. Every task that is wrong is named.
    """
    if not path:
        raise ConfigError(KEY, "name the JSON file of the tasks, or a folder of such files")
    return task_files.read_tasks(path, KEY, functools.partial(_item, sites=sites))


def _item(tree: Any, sites: Mapping[str, str]) -> Item:
    """Raises ValueError."""
    item = task_files.convert(tree, Item, UNUSED)
    task_files.check_id(item.task_id)
    task_files.check_intent(item.intent)
    task_files.check_sites(item.sites, sites, "in suite.options.sites")
    addresses = {placeholder(site): sites[site] for site in item.sites}
    task_files.check_url("start_url", item.start_url, addresses)
    check_evaluation(item.eval, functools.partial(_check_target, addresses=addresses), EVALUATORS)
    if STATE_MATCH in item.eval["eval_types"]:
        state = item.eval.get("state")
        if not isinstance(state, dict) or not state:
            raise ValueError("eval: state_match needs state, a mapping of paths to values")
    check_milestones(item.milestones)
    for response in item.solution:
        try:
            parse(response)
        except ParseError as error:
            raise ValueError(f"solution: {response!r}: {error}") from None
    return item


def _check_target(url: str, locator: str, addresses: Mapping[str, str]) -> None:
    if url != LAST:
        task_files.check_url("eval: the url of a target", url, addresses)
    try:
        evaluators.select_text("", locator)
    except UserError as error:
        raise ValueError(f"eval: {error}") from None


def check_milestones(milestones: Sequence[Milestone]) -> None:
    """Refuses milestones whose rule says nothing, or that can't be decided. Raises ValueError."""
    for milestone in milestones:
        done = milestone.done
        given = {key: value for key in done.__struct_fields__ if (value := getattr(done, key)) is not None}
        if not given or not all(given.values()):
            what = "an empty" if given else "no"
            raise ValueError(f"the milestone {milestone.text!r} has {what} condition; give at least one, such as url, text or state")
        if done.url is not None:
            check_reference_url(f"the milestone {milestone.text!r}: url", done.url)
