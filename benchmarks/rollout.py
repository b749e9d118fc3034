"""Speed and memory of the rollout engine with the arena's scripted expert in Chromium, compared with plain Playwright and BrowserGym.
Linux only.

    python benchmarks/rollout.py --contexts 1 4 --rounds 5 --json rollout.json
    python benchmarks/rollout.py --browsergym .venv-browsergym/bin/python      # also against BrowserGym: make bench-peers
    python benchmarks/rollout.py --latency 2 --contexts 64 --episodes 640      # with a delay in the policy
    python benchmarks/rollout.py --memory 2000                                 # does memory grow?

A step is an action with real input, its page load, one observation, and its record. All runs have the same tasks: they cycle
through the templates of the arena, or of the given domains, up to `--episodes`. Plain Playwright is a simple
loop: click a link, take a JPEG, take an aria_snapshot, on the same sites in the same browser, with one context per
episode. Each round runs every side once, in turn, so that noise affects all sides equally. Figures are medians over the
rounds. CPU is the processor time of the whole process tree, including the start of the browser, which the seconds leave out. For
our engine it is also reported by kind of process.
"""

import argparse
import asyncio
import collections
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from playwright.async_api import Browser, async_playwright

import rollouts.engine.pool
from mira_arena.sites.registry import APPLICATIONS
from mira_arena.tasks.registry import TEMPLATES
from mira_jax.trajectories.prompts import Round
from mira_jax.trajectories.records import Plan, Task
from mira_jax.trajectories.shards import SPOOL, ShardReader
from mira_jax.trajectories.tasks import PAGES
from rollouts.agents.base import Agent, AgentFactory, PolicyConfig, Reply
from rollouts.agents.policy import make_policy
from rollouts.engine.pool import RolloutConfig, Tally, collect
from rollouts.engine.worker import SuiteConfig
from rollouts.suites import Suite, make_suite
from rollouts.suites.base import to_address
from rollouts.suites.miniwob.suite import MiniwobSuite
from rollouts.web.browser import BrowserConfig, find_executables
from rollouts.web.observation import Observation, ObservationConfig

PLAIN_STEPS = 8
"""Steps in an episode of plain Playwright: about the expert's number."""
MINIWOB = "login-user"
"""The page for the comparison with BrowserGym: two fields to fill and a button to press."""
MINIWOB_EPISODES = 15
SAMPLE_SECONDS, MEMORY_SECONDS = 0.25, 5.0
SHARE = "cpu_ms of "
RENDERERS = "renderers"
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--domains", nargs="+", choices=APPLICATIONS, default=list(APPLICATIONS), help="applications of the arena; default: all"
    )
    parser.add_argument("--episodes", type=int, help="episodes of each run; default: one per template")
    parser.add_argument("--draw", action="store_true", help="paint the pages, as sites with animation need")
    parser.add_argument("--screenshots", action="store_true", help="keep a JPEG of every page")
    parser.add_argument("--browsergym", type=Path, metavar="PYTHON", help="the Python that has browsergym-miniwob")
    parser.add_argument(
        "--latency", type=float, metavar="SECONDS", help="latency of the policy at each step; then plain Playwright is not measured"
    )
    parser.add_argument(
        "--memory", type=int, metavar="EPISODES", help="only run this number of episodes, and print the memory after every 100"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="file for all figures")
    arguments = parser.parse_args()
    arguments.templates = [name for name, made in TEMPLATES.items() if made.applications[0] in arguments.domains and not made.held_out]
    arguments.episodes = arguments.memory or arguments.episodes or len(arguments.templates)
    machine = f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, playwright {importlib.metadata.version('playwright')}")
    print(f"{arguments.episodes} episodes of {len(arguments.templates)} templates: {', '.join(arguments.domains)}")
    make_suite("arena").tasks("train", arguments.templates, arguments.episodes, 0)  # Draws the tasks before timing starts.
    figures = memory_over_episodes(arguments) if arguments.memory else compare(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "episodes": arguments.episodes} | figures, indent=1) + "\n")


def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Runs all sides in turn. Prints their medians and ratios."""
    sides: dict[str, Callable[[], dict[str, float]]] = {}
    for contexts in arguments.contexts:
        sides[f"ours, {contexts} contexts"] = lambda contexts=contexts: ours(contexts, arguments)
        if arguments.latency is None:
            sides[f"plain Playwright, {contexts} contexts"] = lambda contexts=contexts: plain(contexts, arguments)
    if arguments.browsergym:
        sides[f"ours, {MINIWOB}"] = ours_miniwob
        sides[f"BrowserGym, {MINIWOB}"] = lambda: browsergym(arguments.browsergym)
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side, run in sides.items():
            runs[side].append(run())
    medians = {side: {key: statistics.median(run[key] for run in done) for key in done[0]} for side, done in runs.items()}
    print("| | steps/s, median | least - most | trajectories/h | CPU ms a step | peak MiB |\n|---|---|---|---|---|---|")
    for side, done in runs.items():
        speeds, median = [run["steps_per_second"] for run in done], medians[side]
        rest = [f"{median[key]:,.0f}" if key in median else "" for key in ("trajectories_per_hour", "cpu_ms", "peak_mib")]
        print(f"| {side} | {median['steps_per_second']:.1f} | {min(speeds):.1f} - {max(speeds):.1f} | {' | '.join(rest)} |")
    for side, median in medians.items():
        shares = {key.removeprefix(SHARE): value for key, value in median.items() if key.startswith(SHARE)}
        if side.startswith("ours") and shares:
            print(f"CPU ms a step, {side}: " + ", ".join(f"{kind} {ms:.1f}" for kind, ms in sorted(shares.items(), key=lambda x: -x[1])))
    speed = {side: median["steps_per_second"] for side, median in medians.items()}
    ratios: dict[str, float] = {}
    for contexts in arguments.contexts:
        if arguments.latency is None:
            ratios[f"plain/{contexts}"] = speed[f"ours, {contexts} contexts"] / speed[f"plain Playwright, {contexts} contexts"]
        else:
            # The ideal: contexts that never wait for the browser.
            ratios[f"ideal/{contexts}"] = speed[f"ours, {contexts} contexts"] / (contexts / arguments.latency)
    if arguments.browsergym:
        ratios["browsergym"] = speed[f"ours, {MINIWOB}"] / speed[f"BrowserGym, {MINIWOB}"]
    for key, ratio in ratios.items():
        print(f"ours / {key}: {ratio:.2f}")
    return {"medians": medians, "runs": runs, "ratios": ratios}


def memory_over_episodes(arguments: argparse.Namespace) -> dict[str, object]:
    """Prints the memory of the process tree after every 100 finished episodes."""
    memory: dict[int, float] = {}

    def watch(tree: "_Tree", folder: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            done = len(os.listdir(folder / SPOOL)) // 100 * 100
            if done not in memory and done:
                memory[done] = tree.pss_mib()
                print(f"{done} episodes: {memory[done]:,.0f} MiB", flush=True)

    tally, _ = _collect(arguments.contexts[-1], arguments, watch)
    print(f"{tally.steps_per_second:.1f} steps/s, {3600 * sum(tally.status.values()) / tally.seconds:,.0f} trajectories/h")
    return {"pss_mib": memory, "steps_per_second": tally.steps_per_second}


def ours(contexts: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Figures of one run. Its seconds leave out the start of browser and sites."""
    peak, looked = 0.0, time.monotonic()

    def watch(tree: "_Tree", folder: Path) -> None:
        nonlocal peak, looked
        # Reading the memory of many processes takes time itself.
        if arguments.latency is not None and time.monotonic() > looked + MEMORY_SECONDS:
            peak, looked = max(peak, tree.pss_mib()), time.monotonic()

    tally, cpu_seconds = _collect(contexts, arguments, watch)
    figures = _figures(tally.steps, arguments.episodes, tally.seconds, cpu_seconds)
    return figures | ({"peak_mib": peak} if peak else {})


def _figures(steps: int, episodes: int, seconds: float, cpu_seconds: Mapping[str, float]) -> dict[str, float]:
    return {
        "steps_per_second": steps / seconds,
        "trajectories_per_hour": 3600 * episodes / seconds,
        "cpu_ms": 1000 * sum(cpu_seconds.values()) / steps,
        **{SHARE + kind: 1000 * spent / steps for kind, spent in cpu_seconds.items()},
    }


def _collect(contexts: int, arguments: argparse.Namespace, watch: "Callable[[_Tree, Path], None]") -> tuple[Tally, dict[str, float]]:
    """Returns the tally of one run, and its processor time by kind of process."""
    browser = BrowserConfig(contexts=contexts, draw=arguments.draw or arguments.screenshots, screenshots=arguments.screenshots)
    observation = ObservationConfig(handles="name", compact=True)
    config = RolloutConfig(templates=arguments.templates, episodes=arguments.episodes, browser=browser, observation=observation)
    if arguments.latency is not None:
        rollouts.engine.pool.make_policy = lambda *given: _slow(make_policy(*given), arguments.latency)
    with tempfile.TemporaryDirectory() as folder, _Tree(lambda tree: watch(tree, Path(folder))) as tree:
        tally = collect(config, Path(folder))
    assert tally.status == {"finished": arguments.episodes}, tally.status
    return tally, tree.cpu_seconds()


def _slow(policy: AgentFactory, seconds: float) -> AgentFactory:
    """The same policy, with a delay of `seconds` before each response."""
    make = policy.agent
    policy.agent = lambda task, attempt: _Slow(make(task, attempt), seconds)  # type: ignore[method-assign]
    return policy


class _Slow:
    def __init__(self, agent: Agent, seconds: float):
        self.agent, self.seconds = agent, seconds

    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        await asyncio.sleep(self.seconds)
        return await self.agent.respond(past, observation, plan)


def plain(contexts: int, arguments: argparse.Namespace) -> dict[str, float]:
    with _Tree() as tree:
        steps, seconds = asyncio.run(_plain(contexts, arguments))
    return _figures(steps, arguments.episodes, seconds, tree.cpu_seconds())


async def _plain(contexts: int, arguments: argparse.Namespace) -> tuple[int, float]:
    suite = make_suite("arena")
    await suite.start()
    tasks = iter(suite.tasks("train", arguments.templates, arguments.episodes, 0))
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_executables(None)[0], chromium_sandbox=not root)
        started = time.perf_counter()
        taken = await asyncio.gather(*(_visit(browser, suite, tasks) for _ in range(contexts)))
        seconds = time.perf_counter() - started
        await browser.close()
    await suite.stop()
    return sum(taken), seconds


async def _visit(browser: Browser, suite: Suite, tasks: Iterator[Task]) -> int:
    """Takes tasks until none are left. Returns the number of steps."""
    steps = 0
    for task in tasks:
        draw = Random(task.id)
        context = await browser.new_context(viewport={"width": 1280, "height": 720})
        session = await suite.open(task, context)
        page = await context.new_page()
        await page.goto(to_address(task.start_url.split(PAGES)[0], session.addresses))
        for _ in range(PLAIN_STEPS):
            links = page.get_by_role("link")
            await links.nth(draw.randrange(await links.count())).click()
            await page.screenshot(type="jpeg", quality=50)
            await page.locator("body").aria_snapshot()
            steps += 1
        await session.close()
        await context.close()
    return steps


def ours_miniwob() -> dict[str, float]:
    """Excludes the first step, which includes opening the page, and the last, which is `exit`."""
    config = RolloutConfig(
        suite=SuiteConfig("miniwob"),
        templates=[MINIWOB],
        episodes=MINIWOB_EPISODES,
        policy=PolicyConfig(kind="expert"),
        browser=BrowserConfig(contexts=1),
    )
    with tempfile.TemporaryDirectory() as folder:
        tally = collect(config, Path(folder))
        assert tally.status == {"finished": MINIWOB_EPISODES}, tally.status
        steps = [step.seconds.browser for episode in ShardReader(Path(folder)) for step in episode.steps[1:-1]]
    return {"steps_per_second": 1 / statistics.median(steps)}


def browsergym(python: Path) -> dict[str, float]:
    return {"steps_per_second": 1 / statistics.median(asyncio.run(_browsergym(python)))}


async def _browsergym(python: Path) -> list[float]:
    """Returns the seconds of each step of BrowserGym, which runs in its own process and environment, on pages that we serve."""
    suite = MiniwobSuite()
    await suite.start()
    (host,) = suite.hosts
    script = Path(__file__).with_name("browsergym_steps.py")
    arguments = [f"http://{host}/miniwob/", MINIWOB, str(MINIWOB_EPISODES), find_executables(None)[0] or ""]
    process = await asyncio.create_subprocess_exec(python, script, *arguments, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    await suite.stop()
    assert process.returncode == 0, "BrowserGym failed; its message is above"
    return json.loads(said)


class _Tree:
    """Processor time and memory of this process and its descendants."""

    def __init__(self, watch: "Callable[[_Tree], None]" = lambda tree: None):
        self._watch, self._seconds = watch, collections.Counter[str]()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Tree":
        self._look()
        self._before = self._seconds.copy()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time by kind of process."""
        return dict(self._seconds - self._before)

    def pss_mib(self) -> float:
        """Memory with shared pages divided among their users: Linux's proportional set size."""
        kib = 0
        for process in _processes(os.getpid()):
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
                kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return kib / 1024

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._look()
            self._watch(self)

    def _look(self) -> None:
        seconds: collections.Counter[str] = collections.Counter()
        for process in _processes(os.getpid()):
            with contextlib.suppress(OSError):
                kind = _kind(process)
                # utime and stime. For the zygote also cutime and cstime, the times of renderers that have ended.
                times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11 : 15 if kind == RENDERERS else 13]
                seconds[kind] += sum(map(int, times)) / _TICKS
        # Keeps the last values seen, since the times of the browser's processes are lost when it ends.
        self._seconds |= seconds


def _kind(process: int) -> str:
    """Kind of a process in the tree."""
    command = Path(f"/proc/{process}/cmdline").read_text()
    found = re.search(r"--type=([a-z-]+)", command)
    if found:
        return {"renderer": RENDERERS, "zygote": RENDERERS, "utility": "network service"}.get(found[1], found[1])
    if process == os.getpid():
        return "Python"
    return "Playwright's driver" if "driver" in command.split("\0")[0] else "browser"


def _processes(process: int) -> list[int]:
    """A process and its descendants."""
    found = [process]
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{process}/task"):
            for child in Path(f"/proc/{process}/task/{task}/children").read_text().split():
                found += _processes(int(child))
    return found


if __name__ == "__main__":
    main()
