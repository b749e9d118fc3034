"""Tasks in JSON on the user's own sites: shared sites at an address, or sites that are started for each episode."""

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import BrowserContext
from playwright.async_api import Page as BrowserPage

from mira_jax import config
from mira_jax.config import NonNegative, Positive
from mira_jax.errors import ConfigError, UserError, first_line, raise_all
from mira_jax.files import read_json
from mira_jax.needs import Needs
from mira_jax.trajectories.actions import EXIT, format_action
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Action, Evidence, Outcome, Page, Subgoal, Task, Trajectory
from mira_jax.trajectories.tasks import SPLITS
from rollouts.errors import SiteError
from rollouts.llm.role import NoAnswer, RoleConfig
from rollouts.llm.usage import Usage
from rollouts.suites import evaluations, evaluators, external
from rollouts.suites.base import NewContext, choose, refuse_changed, to_address
from rollouts.suites.evidence import read_targets
from rollouts.suites.external import AccountConfig
from rollouts.suites.judge import KEY as JUDGE
from rollouts.suites.judge import ModelJudge, judge_needs
from rollouts.suites.login import LoginForm, Logins
from rollouts.suites.tasks.checks import milestones_done, subgoals, unmet
from rollouts.suites.tasks.items import STATE_MATCH, SUITE, Item, placeholder, read_items
from rollouts.suites.tasks.served import PORT, ServedSite

log = logging.getLogger(__name__)
STATE_SECONDS = 10.0
"""Maximum seconds until a site has sent its state."""


@dataclasses.dataclass(frozen=True)
class TasksOptions:
    tasks: str = ""
    """JSON file of tasks, or a folder of such files."""
    sites: dict[str, str] = dataclasses.field(default_factory=dict)
    """Site to base URL, of sites that all episodes share."""
    commands: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Site to the command that serves it, for sites that are started for each episode. `{port}` stands for the port to listen on."""
    start_seconds: Positive = 30.0
    """Maximum seconds until a started site answers."""
    hosts: list[str] = dataclasses.field(default_factory=list)
    """Additional `host:port` that pages need."""
    states: dict[str, str] = dataclasses.field(default_factory=dict)
    """Site to the path of its state, a JSON document that is read after every step and never shown to the policy. Milestones and
    state_match read it."""
    logins: dict[str, LoginForm] = dataclasses.field(default_factory=dict)
    """Site to its login form."""
    accounts: dict[str, AccountConfig] = dataclasses.field(default_factory=dict)
    """Site to the account for its login form."""
    storage_states: dict[str, str] = dataclasses.field(default_factory=dict)
    """Site to a file with cookies, as Playwright's `storage_state` writes it. It takes the place of a login."""
    reset: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Site to the command, run without a shell, that resets it."""
    reset_paths: dict[str, str] = dataclasses.field(default_factory=dict)
    """Site to the path that resets it when it is requested by POST."""
    reset_each: bool = False
    """Reset before each episode, which needs `browser.contexts=1`. By default the sites are reset once, at the start of a run."""
    reset_seconds: Positive = 900.0
    """Maximum seconds for all resets, until every site answers again."""
    settle_seconds: NonNegative = 1.0
    """Seconds that a page opened by the evaluator is given to render."""
    judge: RoleConfig | None = None
    """Chat model that judges fuzzy matches."""

    def __post_init__(self) -> None:
        if both := sorted(self.sites.keys() & self.commands.keys()):
            raise ConfigError(f"commands.{both[0]}", "the site has an address in $.sites too; leave one out")
        known = [*self.sites, *self.commands]
        for key in ("states", "logins", "accounts", "storage_states", "reset", "reset_paths"):
            for site in getattr(self, key):
                if site not in known:
                    raise ConfigError(f"{key}.{site}", f"there is no such site; there are {', '.join(known) or 'none'}")
        for key in ("logins", "storage_states", "reset", "reset_paths"):
            for site in getattr(self, key):
                if site in self.commands:
                    raise ConfigError(f"{key}.{site}", "only for sites with an address: this one starts anew in each episode")
        for site, command in self.commands.items():
            if not command or not any(PORT in part for part in command):
                raise ConfigError(f"commands.{site}", f"name a command as a list of its parts, one of which contains {PORT}")
        for site, command in self.reset.items():
            if not command:
                raise ConfigError(f"reset.{site}", "name a command as a list of its parts")
        for site in self.logins.keys() ^ self.accounts.keys():
            key = "accounts" if site in self.logins else "logins"
            raise ConfigError(f"{key}.{site}", "not given; a login needs both its form and its account")
        for key in ("states", "reset_paths"):
            for site, path in getattr(self, key).items():
                if not path.startswith("/"):
                    raise ConfigError(f"{key}.{site}", f"{path!r} is not a path such as /state.json")


class TasksSuite:
    """Tasks in JSON on the user's own sites."""

    name = SUITE
    Options = TasksOptions

    def __init__(self, **options: Any):
        """`options`: the fields of `TasksOptions`. Raises UserError."""
        self.options = config.build(TasksOptions, options, prefix="suite.options.")
        self.sites = {site: external.address(site, url) for site, url in self.options.sites.items()}
        self.addresses = {placeholder(site): url for site, url in self.sites.items()}
        self._judge = ModelJudge(self.options.judge) if self.options.judge else None
        self._logins: Logins | None = None

    @property
    def one_at_a_time(self) -> str:
        return "suite.options.reset_each" if self.options.reset_each else ""

    @functools.cached_property
    def _items(self) -> dict[str, Item]:
        """The tasks by id. Raises UserError."""
        return read_items(self.options.tasks, {**self.sites, **dict.fromkeys(self.options.commands, "")})

    @property
    def usage(self) -> dict[str, Usage]:
        return {JUDGE: self._judge.usage} if isinstance(self._judge, ModelJudge) else {}

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset([*map(external.host_of, self.sites.values()), *self.options.hosts])

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        """Returns tasks of the split in the order of the files, or `count` of them drawn by `seed`.

        Raises:
            UserError: an unknown split or template, too many tasks, or tasks that need a judge, a login or a state that is not configured.
        """
        if split not in SPLITS:
            raise UserError(f"split: {split!r} is none of {', '.join(SPLITS)}")
        pool = [item.task() for item in self._items.values() if item.split == split]
        chosen = choose(pool, sorted({task.template for task in pool}), templates, count, seed)
        self._check(chosen)
        return chosen

    def task(self, task_id: str) -> Task:
        return self._item(task_id).task()

    async def reset(self) -> None:
        """Resets the shared sites and waits until all of them answer. Starts each of the others once, so that a wrong command fails before
        the first episode. Raises UserError."""
        await asyncio.gather(*[self._ask_command(site, None) for site in self.options.commands])
        limit = asyncio.get_running_loop().time() + self.options.reset_seconds
        await self._reset(limit)
        patient = bool(self.options.reset)
        await external.wait_for_all(self.sites, limit if patient else 0.0)

    async def _reset(self, limit: float) -> None:
        await external.reset_all(self.options.reset, limit)
        async with httpx.AsyncClient(timeout=self.options.reset_seconds, trust_env=False) as client:
            for site, path in self.options.reset_paths.items():
                try:
                    response = await client.post(self.sites[site] + path)
                except httpx.HTTPError as error:
                    raise SiteError(f"{site}: reset by POST {path}: {first_line(error)}") from None
                if response.status_code >= 400:
                    raise ConfigError(f"suite.options.reset_paths.{site}", f"POST {path} answered HTTP {response.status_code}")

    def needs(self, found: Needs, new_context: NewContext | None) -> None:
        judge_needs(found, self.options.judge)
        if not new_context:
            return
        external.program_needs(found, "commands", self.options.commands)
        external.program_needs(found, "reset", self.options.reset)
        for site in self.options.commands:
            found.ask(f"suite.options.commands.{site}", functools.partial(self._ask_command, site), site)
        external.site_needs(found, self.sites)

        async def sign_in(site: str, stack: contextlib.AsyncExitStack) -> None:
            await self._make_logins().sign_in(site, await new_context(stack, self.hosts))

        for site, account in self.options.accounts.items():
            external.account_needs(found, site, account, functools.partial(sign_in, site))

    async def _ask_command(self, site: str, _: object) -> str:
        try:
            served = await ServedSite.start(site, self.options.commands[site], self.options.start_seconds)
        except SiteError as error:
            raise ConfigError(f"suite.options.commands.{site}", str(error)) from None
        await served.close()
        return f"{self.options.commands[site][0]} serves it"

    def _make_logins(self) -> Logins:
        accounts = {site: external.read_account(site, account) for site, account in self.options.accounts.items()}
        return Logins(self.sites, accounts, self.options.logins)

    async def start(self) -> None:
        self._logins = self._make_logins()

    async def stop(self) -> None:
        return None

    async def open(self, task: Task, context: BrowserContext) -> "TasksSession":
        """Resets and logs in where the options say so, and starts the sites of the episode."""
        item = self._item(task.id)
        async with contextlib.AsyncExitStack() as stack:
            if self.options.reset_each:
                await self._reset(asyncio.get_running_loop().time() + self.options.reset_seconds)
            for site in item.login_sites({**self.options.logins, **self.options.storage_states}):
                await self._log_in(site, context)
            served: dict[str, ServedSite] = {}
            for site in item.sites:
                if site in self.options.commands:
                    served[site] = await ServedSite.start(site, self.options.commands[site], self.options.start_seconds)
                    stack.push_async_callback(served[site].close)
            addresses = {site: served[site].address if site in served else self.sites[site] for site in item.sites}
            states = {site: addresses[site] + path for site, path in self.options.states.items() if site in addresses}
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=STATE_SECONDS, trust_env=False))
            session = TasksSession(item, context, addresses, self.options, states, client, stack.pop_all())
        return session

    async def _log_in(self, site: str, context: BrowserContext) -> None:
        if path := self.options.storage_states.get(site):
            await context.add_cookies(_cookies(site, path))
        elif self._logins:
            await self._logins.sign_in(site, context)

    def judge(self, trajectory: Trajectory) -> Outcome | None:
        """Returns None if the judge model gave no verdict."""
        item = self._item_of(trajectory)
        rules = item.eval
        kinds = [kind for kind in rules["eval_types"] if kind != STATE_MATCH]
        try:
            outcome = evaluators.evaluate({**rules, "eval_types": kinds}, trajectory.evidence, item.intent, self._judge)
        except NoAnswer as failure:
            log.warning("episode %s, attempt %d: no outcome: %s", trajectory.task.id, trajectory.attempt, failure)
            return None
        if STATE_MATCH not in rules["eval_types"]:
            return outcome
        state = trajectory.steps[-1].state if trajectory.steps else None
        detail = "; ".join(filter(None, [outcome.detail, *unmet(rules["state"], state)]))
        return Outcome(success=not detail, score=float(not detail), source=outcome.source, detail=detail)

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        milestones = self._item_of(trajectory).milestones
        return subgoals(milestones), milestones_done(trajectory, milestones)

    def references(self, task: Task) -> list[str]:
        """See `rollouts.suites.base.Referenced`."""
        return evaluators.references(self._item(task.id).eval)

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> "Solution":
        """Plays the task's solution.

        Raises:
            UserError: the task has none, or habits are given.
        """
        if habits:
            raise UserError(f"policy.habits: the suite {SUITE} has none; leave them out")
        item = self._item(task.id)
        if not item.solution:
            raise UserError(f"policy.kind: the task {item.task_id} has no solution for an expert; add one, or choose another policy")
        return Solution(item.solution)

    def _item_of(self, trajectory: Trajectory) -> Item:
        """Raises UserError if the task is another than when the episode was collected. Its rules may have changed."""
        item = self._item(trajectory.task.id)
        refuse_changed(item.task(), trajectory.task)
        return item

    def _item(self, task_id: str) -> Item:
        if task_id not in self._items:
            raise UserError(f"{task_id}: no such task in {self.options.tasks}")
        return self._items[task_id]

    def _check(self, tasks: Sequence[Task]) -> None:
        """Raises UserError if the options lack something that the tasks need."""
        missing: dict[str, list[str]] = {}
        for task in tasks:
            item = self._item(task.id)
            logins = {**self.options.logins, **self.options.storage_states}
            needed = {f"logins.{site}" for site in item.login_sites(logins) if site not in logins}
            if self._judge is None and evaluators.needs_judge(item.eval) and not _only_not_possible(item.eval):
                needed.add("judge")
            paths = [
                *(item.eval["state"] if STATE_MATCH in item.eval["eval_types"] else ()),
                *(path for one in item.milestones for path in one.done.state or {}),
            ]
            needed |= {f"states.{path.partition('.')[0]}" for path in paths} - {f"states.{site}" for site in self.options.states}
            for key in needed:
                missing.setdefault(key, []).append(task.id)
        raise_all(
            [
                ConfigError(f"suite.options.{key}", f"not set, and {len(missing[key])} of the tasks need it, the first {missing[key][0]}")
                for key in sorted(missing)
            ]
        )


class Solution:
    """A list of responses, then exit()."""

    def __init__(self, responses: Sequence[str]):
        self._responses = list(responses)

    def respond(self, task: Task, rounds: Sequence[Round], observation: str) -> str:
        if len(rounds) < len(self._responses):
            return self._responses[len(rounds)]
        return format_action(Action(name=EXIT, argument=""))


class TasksSession:
    """One episode."""

    def __init__(
        self,
        item: Item,
        context: BrowserContext,
        sites: Mapping[str, str],
        options: TasksOptions,
        states: Mapping[str, str],
        client: httpx.AsyncClient,
        stack: contextlib.AsyncExitStack,
    ):
        """
        Args:
            sites: site to address.
            states: site to the address of its state.
            stack: ends what the episode has started.
        """
        self.task = item.task()
        self.addresses = {placeholder(site): address for site, address in sites.items()}
        self.hosts = frozenset([*map(external.host_of, sites.values()), *options.hosts])
        self._item, self._context, self._options, self._states = item, context, options, states
        self._client, self._stack = client, stack

    async def state(self) -> dict[str, Any]:
        """Site to its state, of the sites that have one. Raises SiteError."""
        found = {}
        for site, address in self._states.items():
            try:
                response = await self._client.get(address)
                response.raise_for_status()
                found[site] = response.json()
            except (httpx.HTTPError, ValueError) as error:
                raise SiteError(f"{site}: its state at {address} can't be read: {first_line(error)}") from None
        return found

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        """Reads the elements that the targets of `program_html` select, on the page in front or on a page opened for this purpose."""

        async def to_url(url: str) -> str:
            return to_address(url, self.addresses)

        async def select(shown: BrowserPage, locator: str) -> str:
            return evaluators.select_text(await shown.content(), locator)

        targets, settle_seconds = evaluations.targets(self._item.eval), self._options.settle_seconds
        contents = await read_targets(targets, self._context, front, settle_seconds, to_url, select)
        return Evidence(answer=answer, page=page, contents=contents)

    async def close(self) -> None:
        await self._stack.aclose()


def _only_not_possible(evaluation: Mapping[str, Any]) -> bool:
    """Whether the only fuzzy match is of N/A, which a rule can decide."""
    fuzzy = evaluation.get("reference_answers", {}).get("fuzzy_match") if "string_match" in evaluation["eval_types"] else None
    others = any("fuzzy_match" in target["required_contents"] for target in evaluations.targets(evaluation))
    parts = [fuzzy] if isinstance(fuzzy, str) else fuzzy
    return not others and parts is not None and [part.strip().casefold() for part in parts] == [evaluators.NOT_POSSIBLE]


def _cookies(site: str, path: str) -> list[Any]:
    """The cookies of a storage state. Raises UserError."""
    key = f"suite.options.storage_states.{site}"
    if not Path(path).exists():
        raise ConfigError(key, f"{path}: no such file")
    tree = read_json(path, "write it again with Playwright's context.storage_state")
    cookies = tree.get("cookies")
    if not isinstance(cookies, list) or not cookies:
        raise ConfigError(key, f"{path}: holds no cookies; is it a storage state?")
    if tree.get("origins"):
        raise ConfigError(key, f"{path}: holds local storage, which is not restored here; use a login by form (suite.options.logins)")
    return json.loads(json.dumps(cookies))
