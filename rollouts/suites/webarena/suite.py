"""WebArena-Lite as a suite, with a file of instructions to train on: the user's sites, the sessions of its episodes, and its evaluation."""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from playwright.async_api import BrowserContext, Error
from playwright.async_api import Page as BrowserPage

from mira_jax import config
from mira_jax.config import Fraction, NonNegative, Positive
from mira_jax.errors import ConfigError, UserError, raise_all
from mira_jax.needs import Needs
from mira_jax.trajectories.records import Evidence, Outcome, Page, Subgoal, Task, Trajectory
from mira_jax.trajectories.tasks import SPLITS
from rollouts.errors import SiteError
from rollouts.llm.role import NoAnswer, RoleConfig
from rollouts.llm.usage import Usage
from rollouts.suites import evaluations, evaluators, external
from rollouts.suites.base import NewContext, choose, refuse_changed, to_address
from rollouts.suites.evidence import read_targets
from rollouts.suites.judge import KEY as JUDGE
from rollouts.suites.judge import ModelJudge, judge_needs
from rollouts.suites.login import Logins
from rollouts.suites.tasks.checks import milestones_done, subgoals
from rollouts.suites.webarena.helpers import Helpers, is_call, needs_shop_api
from rollouts.suites.webarena.tasks import (
    FORMS,
    SEVERAL,
    SITES,
    SUITE,
    is_written,
    login_sites,
    placeholder,
    read_tasks,
    to_task,
    written_item,
)
from rollouts.suites.webarena.training import KEY, PREFIX, TrainingTask, TrainingTasks, read_training
from rollouts.web.playwright_errors import is_crashed

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
    judge: RoleConfig | None = None
    """Chat model that judges fuzzy matches."""
    training: str = ""
    """File of instructions for the splits train and validation (docs/webarena.md), or a folder of such files."""
    validation_share: Fraction = 0.1
    """Share of the instructions in the split validation. A hash of the task's id decides."""

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
    def usage(self) -> dict[str, Usage]:
        return {JUDGE: self._judge.usage} if isinstance(self._judge, ModelJudge) else {}

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset([*map(external.host_of, self.sites.values()), *self.options.hosts])

    @functools.cached_property
    def _training(self) -> TrainingTasks:
        """Raises UserError."""
        if not self.options.training:
            raise ConfigError(KEY, "the benchmark has only the split test; name a file of instructions to train on (docs/webarena.md)")
        tests = [item["intent"] for item in self._items.values()]
        return read_training(self.options.training, self.options.validation_share, tests)

    def tasks(self, split: str, templates: Sequence[str] | None, count: int, seed: int) -> list[Task]:
        """Returns tasks in the order of the benchmark, or of the file of instructions. The templates are the sites, and `several_sites`.

        Raises:
            UserError: an unknown split or template, too many tasks, or tasks whose site, account or judge is missing.
        """
        if split not in SPLITS:
            raise UserError(f"split: {split!r} is none of {', '.join(SPLITS)}")
        names = self._items if split == "test" else self._training.tasks
        pool = [task for name in names if (task := self.task(name)).split == split]
        chosen = choose(pool, (*SITES, SEVERAL), templates, count, seed)
        self._check(chosen)
        return chosen

    def task(self, task_id: str) -> Task:
        return self._training_task(task_id).task if task_id.startswith(PREFIX) else to_task(task_id, self._item(task_id))

    def has_rules(self, task: Task) -> bool:
        return bool(self._item_of(task)["eval"]["eval_types"])

    async def reset(self) -> None:
        """Resets the sites and waits until all of them answer.

        Raises:
            UserError: a reset fails, or a site does not answer.
        """
        limit = asyncio.get_running_loop().time() + self.options.reset_seconds
        await external.reset_all(self.options.reset, limit)
        await external.wait_for_all(self.sites, limit if self.options.reset else 0.0)

    def needs(self, found: Needs, new_context: NewContext | None) -> None:
        if self.options.training:
            with found.attempt("suite"):
                found.ok(KEY, self._training.describe())
        judge_needs(found, self.options.judge)
        if not new_context:
            return
        external.program_needs(found, "reset", self.options.reset)
        external.site_needs(found, self.sites)

        async def sign_in(name: str, account: external.AccountConfig, stack: contextlib.AsyncExitStack) -> None:
            pair = external.read_account(name, account)
            if name == SHOP_API:
                await Helpers(self.sites, pair).log_in()
            else:
                await Logins(self.sites, {name: pair}, FORMS).sign_in(name, await new_context(stack, self.hosts))

        for name, account in self.options.accounts.items():
            has_site = ("shopping" if name == SHOP_API else name) in self.sites
            external.account_needs(found, name, account, functools.partial(sign_in, name, account) if has_site else None)

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
        """Returns None if the judge model gave no verdict, and for tasks without rules (`has_rules`)."""
        item = self._item_of(trajectory.task)
        if not item["eval"]["eval_types"]:
            return None
        try:
            return evaluators.evaluate(item["eval"], trajectory.evidence, item["intent"], self._judge)
        except NoAnswer as failure:
            task = trajectory.task
            log.warning("episode %s, seed %d, attempt %d: no outcome: %s", task.id, task.seed, trajectory.attempt, failure)
            return None

    def milestones(self, trajectory: Trajectory) -> tuple[tuple[Subgoal, ...], list[tuple[bool, ...]]]:
        """Only instructions have milestones. WebArena-Lite defines none."""
        if not trajectory.task.id.startswith(PREFIX):
            return (), [() for _ in trajectory.steps]
        milestones = self._training_task(trajectory.task.id).milestones
        return subgoals(milestones), milestones_done(trajectory, milestones)

    def references(self, task: Task) -> list[str]:
        """See `rollouts.suites.base.Referenced`."""
        return evaluators.references(self._item_of(task)["eval"])

    def expert(self, task: Task, habits: Mapping[str, float] | None = None, seed: int = 0, attempt: int = 0) -> NoReturn:
        raise UserError("policy.kind: webarena_lite has no expert; choose endpoint, random or idle")

    def _item_of(self, task: Task) -> Mapping[str, Any]:
        """The task in WebArena's JSON form. Raises UserError if there is none, or if it has changed since its episode was collected."""
        if is_written(task):
            return written_item(task, [site for site in task.sites if site in self._signable()])
        refuse_changed(self.task(task.id), task)
        return self._training_task(task.id).item if task.id.startswith(PREFIX) else self._item(task.id)

    def _training_task(self, task_id: str) -> TrainingTask:
        if task_id not in self._training.tasks:
            raise UserError(f"{task_id}: no such task in {self.options.training}")
        return self._training.tasks[task_id]

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
            item = self._item_of(task)
            needed = {f"sites.{site}" for site in {*task.sites, *login_sites(item)} - self.sites.keys()}
            needed |= {f"accounts.{site}" for site in login_sites(item) if site not in self.options.accounts}
            if any(needs_shop_api(text) for target in evaluations.targets(item["eval"]) for text in (target["url"], target["locator"])):
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

        async def to_url(url: str) -> str:
            return to_address(await self._helpers.call(url, front, last_url) if is_call(url) else url, self.addresses)

        async def select(shown: BrowserPage, locator: str) -> str:
            return self._to_placeholders(await self._select(shown, locator.strip(), last_url))

        targets = evaluations.targets(self._evaluation)
        contents = await read_targets(targets, self._context, front, self._settle_seconds, to_url, select)
        return Evidence(answer=answer, page=page, contents=contents)

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
