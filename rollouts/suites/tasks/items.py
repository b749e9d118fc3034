"""Reads tasks from JSON files in WebArena's form, with a few keys of our own (docs/your-site.md). Nothing in them is evaluated."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mira_jax.errors import ConfigError, UserError, raise_all
from mira_jax.files import parse_json
from mira_jax.trajectories.actions import ParseError, parse
from mira_jax.trajectories.records import Task
from rollouts.suites import evaluators

SUITE = "tasks"
SEVERAL = "several_sites"
UNUSED = frozenset({
    "require_login", "require_reset", "geolocation", "intent_template", "intent_template_id", "instantiation_dict", "old_task_id",
    "comments",
})  # fmt: skip
"""Keys of WebArena's tasks without effect here."""
STATE_MATCH = "state_match"
EVALUATORS = ("string_match", "url_match", "program_html", STATE_MATCH)
REFERENCES = ("exact_match", "must_include", "fuzzy_match")


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a milestone is done: every condition that is given holds of the page, or of the sites' state, after a step."""

    url: str | None = None
    """The page's address contains this, by the rule of `url_match`."""
    text: str | None = None
    """The page's text contains this, in any case."""
    element: str | None = None
    """A line of the page that shows an element contains this, in any case."""
    state: dict[str, Any] | None = None
    """Path in the sites' state to its value, for example {"shop.cart.0.name": "lamp"}."""


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
    horizon: Annotated[int, Meta(ge=1)] = 30
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


def read_items(path: str, sites: Mapping[str, Any]) -> dict[str, Item]:
    """The tasks by id, in the order of the files' names.

    Args:
        path: a JSON file with a task or a list of tasks, or a folder of such files.
        sites: the sites that there are.

    Raises:
        UserError: there are no tasks, or some are malformed. Every task that is wrong is named.
    """
    if not path:
        raise ConfigError("suite.options.tasks", "name the JSON file of the tasks, or a folder of such files")
    files = sorted(Path(path).rglob("*.json")) if Path(path).is_dir() else [Path(path)]
    items: dict[str, Item] = {}
    where: dict[str, str] = {}
    errors: list[UserError] = []
    for file in files:
        for place, tree in _trees(file):
            try:
                item = _item(tree, sites)
                if item.id in items:
                    raise ValueError(f"the id {item.task_id} is also that of a task in {where[item.id]}")
                items[item.id], where[item.id] = item, place
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                errors.append(UserError(f"{place}: {error}"))
    raise_all(errors)
    if not items:
        raise ConfigError("suite.options.tasks", f"{path}: no tasks in it")
    return items


def _trees(file: Path) -> list[tuple[str, Any]]:
    """(where, task) of each task in a file."""
    try:
        tree = parse_json(file.read_bytes())
    except OSError as error:
        raise ConfigError("suite.options.tasks", f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}") from None
    if not isinstance(tree, list):
        return [(str(file), tree)]
    return [(f"{file}, task {number} of {len(tree)}", one) for number, one in enumerate(tree, 1)]


def _item(tree: Any, sites: Mapping[str, Any]) -> Item:
    """Raises ValueError, KeyError, TypeError or AttributeError."""
    if not isinstance(tree, dict):
        raise ValueError(f"not a task but {json.dumps(tree)[:60]}")
    known = {field.encode_name for field in msgspec.structs.fields(Item)} | UNUSED
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown key {key}; did you mean {near}?")
    item = msgspec.convert(tree, Item)
    for site in item.sites:
        if site not in sites:
            raise ValueError(f"the site {site} is not in suite.options.sites; there are {', '.join(sites) or 'none'}")
    _check_evaluation(item.eval)
    for milestone in item.milestones:
        if milestone.done == Check():
            raise ValueError(f"the milestone {milestone.text!r} has no condition; give url, text, element or state")
    for response in item.solution:
        try:
            parse(response)
        except ParseError as error:
            raise ValueError(f"solution: {response!r}: {error}") from None
    return item


def _check_evaluation(evaluation: dict[str, Any]) -> None:
    kinds = evaluation.get("eval_types")
    if not isinstance(kinds, list) or not kinds:
        raise ValueError("eval: eval_types is not a list of evaluators")
    for kind in kinds:
        if kind not in EVALUATORS:
            raise ValueError(f"eval: unknown evaluator {kind!r}; there are {', '.join(EVALUATORS)}")
    if "string_match" in kinds:
        _check_references(evaluation.get("reference_answers"), "reference_answers")
    if "url_match" in kinds and not isinstance(evaluation.get("reference_url"), str):
        raise ValueError("eval: url_match needs reference_url")
    if (evaluation.get("url_note") or "GOLD in PRED") not in ("GOLD in PRED", "EXACT"):
        raise ValueError(f"eval: url_note {evaluation['url_note']!r} is neither 'GOLD in PRED' nor 'EXACT'")
    if STATE_MATCH in kinds and not (isinstance(evaluation.get("state"), dict) and evaluation["state"]):
        raise ValueError("eval: state_match needs state, a mapping of paths to values")
    if "program_html" in kinds:
        targets = evaluation.get("program_html")
        if not isinstance(targets, list) or not targets:
            raise ValueError("eval: program_html needs a list of targets")
        for target in targets:
            if not isinstance(target, dict) or not isinstance(target.get("url"), str) or not isinstance(target.get("locator"), str):
                raise ValueError("eval: a target of program_html needs url and locator")
            try:
                evaluators.select_text("", target["locator"])
            except UserError as error:
                raise ValueError(f"eval: {error}") from None
            _check_references(target.get("required_contents"), "required_contents")


def _check_references(references: Any, key: str) -> None:
    if not isinstance(references, dict) or not references or not set(references) <= set(REFERENCES):
        raise ValueError(f"eval: {key} must map {', '.join(REFERENCES)} to references")
