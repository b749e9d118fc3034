"""WebArena-Lite as a suite: the user's sites, the sessions of its episodes, and its evaluation."""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from playwright.async_api import BrowserContext, Error
from playwright.async_api import Page as BrowserPage

from mira_jax import config
from mira_jax.config import NonNegative, Positive
from mira_jax.errors import ConfigError, UserError, first_line, raise_all
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from rollouts.errors import BrowserError, InfraError, SiteError
from rollouts.llm.endpoint import EndpointConfig
from rollouts.llm.probe import ask_chat
from rollouts.suites import evaluators, external
from rollouts.suites.base import NewContext, choose, to_address
from rollouts.suites.judge import KEY as JUDGE
from rollouts.suites.judge import ModelJudge, NoVerdict
from rollouts.suites.login import LoginForm, Logins
from rollouts.suites.webarena.helpers import Helpers, is_call, needs_shop_api
from rollouts.suites.webarena.tasks import SEVERAL, SITES, SUITE, is_written, login_sites, placeholder, read_tasks, to_task, written_item
from rollouts.web.playwright_errors import is_crashed

FORMS = {
    "shopping": LoginForm("/customer/account/login/", "login[username]", "login[password]", "/wishlist/"),
    "shopping_admin": LoginForm("", "login[username]", "login[password]", "/dashboard"),
    "reddit": LoginForm("/login", "_username", "_password", "/user/{user}/account"),
    "gitlab": LoginForm("/users/sign_in", "user[login]", "user[password]", "/-/profile"),
}
SHOP_API = "shopping_site_admin"
log = logging.getLogger(__name__)
_LOCATOR_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class WebArenaOptions:
    tasks: str = ""
    """Path of the published wheel, or of the JSON file in it. Empty: the installed package."""
    sites: dict[str, str] = dataclasses.field(default_factory=dict)
    """Site to base URL."""
    hosts: list[str] = dataclasses.field(default_factory=list)
    """Additional `host:port` that pages need, for example the map's tile server."""
    accounts: dict[str, external.AccountConfig] = dataclasses.field(default_factory=dict)
    """Site to account. `shopping_site_admin` is the account for the shop's web API, which evaluates some tasks."""
    reset: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Site to the command, run without a shell, that resets it to its initial state once at the start of a run."""
    reset_seconds: Positive = 900.0
    """Maximum seconds for all resets, until every site answers again."""
    settle_seconds: NonNegative = 3.0
    """Seconds that a page opened by the evaluator is given to render."""
    judge: EndpointConfig | None = None
    """Chat model that judges fuzzy matches."""

    def __post_init__(self) -> None:
        for key, known in (("sites", SITES), ("accounts", (*FORMS, SHOP_API)), ("reset", SITES)):
            for name in getattr(self, key):
                if name not in known:
                    raise ConfigError(f"{key}.{name}", f"{name!r} is none of {', '.join(known)}")
        for site, account in self.accounts.items():
            if not (account.user and account.password):
                raise ConfigError(f"accounts.{site}", "name the environment variables that hold user and password")
        for site, command in self.reset.items():
            if not command:
                raise ConfigError(f"reset.{site}", "name a command as a list of its parts")


class WebArenaLiteSuite:
    """WebArena-Lite. Concurrent episodes share its sites, and their changes persist until the sites are reset."""

    name = SUITE
    Options = WebArenaOptions

    def __init__(self, judge: evaluators.Judge | None = None, /, **options: Any):
        """`options`: the fields of `WebArenaOptions`. `judge` takes precedence over theirs. Raises UserError."""
        self.options = config.build(WebArenaOptions, options, prefix="suite.options.")
        self.sites = {site: external.address(site, url) for site, url in self.options.sites.items()}
        self.addresses = {placeholder(site): url for site, url in self.sites.items()}
        self._judge = judge or (ModelJudge(self.options.judge) if self.options.judge else None)
        self._logins: Logins | None = None
        self._helpers: Helpers | None = None

    @functools.cached_property
    def _items(self) -> dict[str, dict[str, Any]]:
        """The tasks of the benchmark by id. Raises UserError."""
        return read_tasks(self.options.tasks)

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset([*map(external.host_of, self.sites.values()), *self.options.hosts])

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        """Returns tasks in the benchmark's order. The templates are the sites, and `several_sites`.

        Raises:
            UserError: a split other than test, too many tasks, an unknown template, or tasks whose site, account or judge is missing.
        """
        if split != "test":
            raise UserError(f"split: {split!r}: webarena_lite has only the split test: its tasks are for evaluation")
        chosen = choose([self.task(name) for name in self._items], (*SITES, SEVERAL), templates, count, seed)
        self._check(chosen)
        return chosen

    def task(self, task_id: str) -> Task:
        return to_task(task_id, self._item(task_id))

    async def reset(self) -> None:
        """Resets the sites and waits until all of them answer.

        Raises:
            UserError: a reset fails, or a site does not answer.
        """
        limit = asyncio.get_running_loop().time() + self.options.reset_seconds
        await asyncio.gather(*[external.reset(site, command, limit) for site, command in self.options.reset.items()])
        patient = bool(self.options.reset)
        await asyncio.gather(*[external.wait_for(site, url, limit if patient else 0.0) for site, url in self.sites.items()])

    def needs(self, found: Needs, new_context: NewContext | None) -> None:
        judge = self.options.judge
        if judge:
            found.variable(f"{JUDGE}.api_key_env", judge.api_key_env)
            found.ask(JUDGE, lambda _: ask_chat(judge, JUDGE), judge)
        if not new_context:
            return
        for site, command in self.options.reset.items():
            if not shutil.which(command[0]):
                found.missing(f"suite.options.reset.{site}", f"{command[0]}: no such program; install it, or give its path")
        for site, url in self.sites.items():
            found.ask(f"suite.options.sites.{site}", functools.partial(external.ask_site, site, url), url)
        for name, account in self.options.accounts.items():
            unset = external.unset(name, account)
            for error in unset:
                found.failed(error)
            if not unset and ("shopping" if name == SHOP_API else name) in self.sites:
                found.ask(f"suite.options.accounts.{name}", functools.partial(self._ask_account, name, account, new_context), account)

    async def _ask_account(
        self, name: str, account: external.AccountConfig, new_context: NewContext, stack: contextlib.AsyncExitStack
    ) -> str:
        """Logs in to a site, or to the shop's web API. Raises UserError."""
        pair = external.read_account(name, account)
        try:
            if name == SHOP_API:
                await Helpers(self.sites, pair).log_in()
            else:
                await Logins(self.sites, {name: pair}, FORMS).sign_in(name, await new_context(stack, self.hosts))
        except (InfraError, Error) as error:
            raise ConfigError(f"suite.options.accounts.{name}", f"no login: {first_line(error)}") from None
        return f"logged in, with the account in {account.user}"

    async def start(self) -> None:
        accounts = {site: external.read_account(site, self.options.accounts[site]) for site in FORMS if site in self._signable()}
        self._logins = Logins(self.sites, accounts, FORMS)
        api = self.options.accounts.get(SHOP_API)
        self._helpers = Helpers(self.sites, external.read_account(SHOP_API, api) if api else None)

    async def stop(self) -> None:
        return None

    async def open(self, task: Task, context: BrowserContext) -> "WebArenaSession":
        """Logs `context` in to the sites that the task names."""
        if not (self._logins and self._helpers):
            raise RuntimeError("start() comes before a session")
        item = self._item_of(task)
        for site in login_sites(item):
            await self._logins.sign_in(site, context)
        hosts = frozenset([*(external.host_of(self.sites[site]) for site in {*task.sites, *login_sites(item)}), *self.options.hosts])
        return WebArenaSession(task, item["eval"], context, self.addresses, hosts, self._helpers, self.options.settle_seconds)

    def judge(self, trajectory: Trajectory) -> Outcome | None:
        """Returns None if the judge model gave no verdict, and for written tasks, which no rule evaluates."""
        if is_written(trajectory.task):
            return None
        item = self._item_of(trajectory.task)
        try:
            return evaluators.evaluate(item["eval"], trajectory.evidence, item["intent"], self._judge)
        except NoVerdict as failure:
            task = trajectory.task
            log.warning("episode %s, seed %d, attempt %d: no outcome: %s", task.id, task.seed, trajectory.attempt, failure)
            return None

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        """No subgoals: WebArena-Lite defines none."""
        return (), [() for _ in trajectory.steps]

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> NoReturn:
        raise UserError("policy.kind: webarena_lite has no expert; choose endpoint, random or idle")

    def _item_of(self, task: Task) -> dict[str, Any]:
        return written_item(task, [site for site in task.sites if site in self._signable()]) if is_written(task) else self._item(task.id)

    def _item(self, task_id: str) -> dict[str, Any]:
        if task_id not in self._items:
            raise UserError(f"{task_id}: no such task; they are {SUITE}.0 to {SUITE}.{len(self._items) - 1}")
        return self._items[task_id]

    def _signable(self) -> set[str]:
        return self.sites.keys() & self.options.accounts.keys()

    def _check(self, tasks: Sequence[Task]) -> None:
        """Raises UserError if the configuration lacks something that the tasks need."""
        missing: dict[str, list[str]] = {}
        for task in tasks:
            item = self._item(task.id)
            needed = {f"sites.{site}" for site in {*task.sites, *login_sites(item)} - self.sites.keys()}
            needed |= {f"accounts.{site}" for site in login_sites(item) if site not in self.options.accounts}
            if any(needs_shop_api(text) for target in _targets(item["eval"]) for text in (target["url"], target["locator"])):
                needed |= {f"accounts.{SHOP_API}"} - {f"accounts.{name}" for name in self.options.accounts}
            if self._judge is None and evaluators.needs_judge(item["eval"]):
                needed.add("judge")
            for key in needed:
                missing.setdefault(key, []).append(task.id)
        errors = [
            ConfigError(f"suite.options.{key}", f"not set, and {len(missing[key])} of the tasks need it, the first {missing[key][0]}")
            for key in sorted(missing)
        ]
        raise_all([*errors, *(error for name, account in self.options.accounts.items() for error in external.unset(name, account))])


class WebArenaSession:
    """One episode on the shared sites."""

    def __init__(
        self,
        task: Task,
        evaluation: Mapping[str, Any],
        context: BrowserContext,
        addresses: Mapping[str, str],
        hosts: frozenset[str],
        helpers: Helpers,
        settle_seconds: float,
    ):
        self.task, self.addresses, self.hosts = task, addresses, hosts
        self._evaluation, self._context, self._helpers, self._settle_seconds = evaluation, context, helpers, settle_seconds

    async def state(self) -> dict[str, Any]:
        """Returns an empty snapshot, since the sites' state can't be read."""
        return {}

    async def evidence(self, page: Page | None, answer: str | None, front: BrowserPage | None = None) -> Evidence:
        """Reads the elements that the targets of `program_html` select, on the page in front or on a page opened for this purpose."""
        last_url = to_address(page.url, self.addresses) if page else ""
        contents, own, at = [], None, ""
        for target in _targets(self._evaluation):
            url, shown = target["url"], front
            if is_call(url):
                url = await self._helpers.call(url, front, last_url)
            if url != "last":
                shown = own = own or await self._context.new_page()
                if url != at:
                    response = await own.goto(to_address(url, self.addresses), wait_until="load")
                    if response and response.status >= 500:
                        raise SiteError(f"{url} answered HTTP {response.status}")
                    await asyncio.sleep(self._settle_seconds)
                    at = url
            if shown is None:
                raise BrowserError("the last page is gone")
            contents.append(self._to_placeholders(await self._select(shown, target["locator"].strip(), last_url)))
        return Evidence(answer=answer, page=page, contents=tuple(contents))

    async def close(self) -> None:
        return None

    async def _select(self, page: BrowserPage, locator: str, last_url: str) -> str:
        """Returns the text that a locator selects. A locator is a script of the benchmark and is only run in the page. If it fails, it
        selects nothing."""
        try:
            async with asyncio.timeout(_LOCATOR_SECONDS):
                if not locator:
                    return await page.content()
                if is_call(locator):
                    return await self._helpers.call(locator, page, last_url)
                return str(await page.evaluate(f"() => {locator}"))
        except TimeoutError:
            raise SiteError(f"{locator or 'the page'} took more than {_LOCATOR_SECONDS:g} s") from None
        except Error as error:
            if page.is_closed() or is_crashed(error) or not locator:
                raise
            return ""

    def _to_placeholders(self, text: str) -> str:
        """Replaces the sites' addresses by placeholders, as in the references."""
        for name, address in sorted(self.addresses.items(), key=lambda pair: -len(pair[1])):
            text = re.sub(re.escape(address) + r"(?![\w:-]|\.\w)", name, text)
        return text


def _targets(evaluation: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return evaluation["program_html"] if "program_html" in evaluation["eval_types"] else ()
