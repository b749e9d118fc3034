"""What breaks under a run: browser, pages, sites. No episode is lost, doubled, or scored for it."""

import asyncio
import logging
import os
import signal
import time

import msgspec
import pytest

import rollouts.engine.episode
import rollouts.engine.worker
import rollouts.web.drivers
from mira_jax.errors import UserError
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader
from rollouts.engine.pool import LOST, collect, lost_episodes
from rollouts.labels.outcome import label
from rollouts.web.drivers import Chromium
from tests.rollouts.sites import BROWSER, CountingSession, CountingSuite, config, descendants
from tests.rollouts.waiting import PATIENCE, command_line


@pytest.mark.parametrize("victim", ["browser", "renderer"])
def test_a_killed_browser_or_renderer_costs_a_retry_and_no_episode(use, tmp_path, monkeypatch, victim):
    pools = []
    monkeypatch.setattr(rollouts.web.drivers, "Chromium", lambda *a: pools.append(Chromium(*a)) or pools[-1])
    killed = []

    async def trouble(session):
        if session.task.id.endswith(".2") and session.presses == 1 and not killed:  # two more presses need the browser
            for process, name in descendants(os.getpid()):
                if name.startswith("chrom") and (victim == "browser" or b"--type=renderer" in command_line(process)):
                    killed.append(process)
                    os.kill(process, signal.SIGKILL)

    use(CountingSuite(trouble))
    tally = collect(config(browser=BROWSER | {"call_seconds": 30}), tmp_path)
    assert killed and tally.status == {"finished": 4} and tally.retries >= 1
    assert pools[0].launches == (2 if victim == "browser" else 1)
    for episode in ShardReader(tmp_path):
        assert len(episode.steps) == int(episode.task.intent.split()[1]) + 1
        assert [step.index for step in episode.steps] == list(range(len(episode.steps)))


# The pages.


PRESS = "<button onclick='{}'>press</button>"


PAGES = {
    "silent": None,
    "carousel": "<a href=/left-turn>press</a>",
    "fine": "<a href=/press?n=1>press</a>",
    "dialogs": "<script>onbeforeunload = (event) => event.preventDefault()</script>"
    + PRESS.format("for (let i = 0; i < 33; i++) { alert(i); confirm(i); prompt(i) } location = `/left`"),
    "popups": PRESS.format("for (let i = 0; i < 100; i++) window.open(`/popup?` + i)"),
    "fountain": PRESS.format("setInterval(() => window.open(`/popup`), 1)"),
    "downloads": PRESS.format(
        "for (let i = 0; i < 30; i++) { const a = document.createElement(`a`); a.href = `/file?` + i; a.download = i; a.click() }"
    ),
    "circle": "<a href=/circle>press</a>",
    "huge": b"<a href=/press?n=1>press</a><p>" + b"word " * 10_000_000,
}


FINISHED, GIVEN_UP = {Status.FINISHED}, {Status.INFRA_ERROR}


ENDS = {"silent": GIVEN_UP, "circle": GIVEN_UP, "huge": FINISHED | GIVEN_UP}
"""How an episode on the page may end. What is not here finishes."""


class Zoo(CountingSuite):
    """Each task begins on a page of its own."""

    def tasks(self, split, templates, count, seed):
        return [self.task(f"press.{split}.{seed}.{index}") for index in range(len(PAGES))]

    def task(self, task_id):
        start = "/hang" if self.page_of(task_id) == "silent" else f"/{self.page_of(task_id)}"
        return msgspec.structs.replace(super().task(task_id), intent="press 2", start_url="__COUNT__" + start)

    def page_of(self, task_id):
        return list(PAGES)[int(task_id.rsplit(".", 1)[1])]

    async def start(self):
        await super().start()
        self.site.pages |= {f"/{name}": page for name, page in PAGES.items() if page}
        self.site.pages |= {f"/{a}-turn": f"<script>location = '/{b}-turn'</script>" for a, b in (("left", "right"), ("right", "left"))}


def test_bad_pages_cost_their_own_episodes_at_most(use, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    suite = use(Zoo())
    browser = BROWSER | {"contexts": 4, "call_seconds": 90, "load_seconds": 6}
    tally = collect(config(browser=browser, limits={"tries": 1, "give_up_after": 100}), tmp_path / "out")
    assert tally.wanted == sum(tally.status.values()) == len(PAGES)
    kept, lost = list(ShardReader(tmp_path / "out")), lost_episodes(tmp_path / "out" / LOST)
    ended = {suite.page_of(episode.task.id): episode for episode in [*kept, *lost]}
    assert len(kept) + len(lost) == len(ended) == len(PAGES)
    assert {name: episode.error for name, episode in ended.items() if episode.status not in ENDS.get(name, FINISHED)} == {}
    assert "no page has stayed" in str(ended["carousel"].steps)
    for name in ("silent", "circle"):
        assert ended[name].error.startswith("site: ") and not ended[name].steps
    assert "/left" in suite.site.calls, "after 99 dialogs the page was left, past one more"
    for name in ("popups", "fountain"):
        tabs = [step.page.observation.split("\n")[0].split(",") for step in ended[name].steps]
        assert max(map(len, tabs)) <= 32
    assert "more than 32 tabs; the others were closed" in str(ended["popups"].steps)
    for step in ended["huge"].steps:
        assert len(step.page.observation) < 41_000
    assert [path for path in scratch.rglob("*") if path.is_file()] == [], "nothing that a page sent is kept"


def test_a_page_that_hangs_or_never_stops_talking_is_lost_while_the_others_go_on(use, tmp_path):
    async def trouble(session):
        hang = {"1": "for (;;);", "2": "for (;;) alert(1)"}.get(session.task.id[-1])
        if hang and session.presses == 1:  # one or two more presses need the page
            await session.context.pages[-1].evaluate(f"setTimeout(() => {{ {hang} }}, 0)")

    use(CountingSuite(trouble))
    tally = collect(config(limits={"tries": 1}, browser=BROWSER | {"call_seconds": 5}), tmp_path)
    assert tally.status == {"finished": 2, "infra_error": 2}


# The sites.


def test_lost_episodes_are_counted_apart_never_judged_and_tried_again(use, tmp_path):
    async def trouble(session):
        if session.task.id.endswith((".1", ".3")):
            raise OSError("the site is ill")

    suite = use(CountingSuite(trouble))
    tally = collect(config(limits={"tries": 2}), tmp_path)
    assert tally.status == {"finished": 2, "infra_error": 2} and tally.retries == 4
    assert suite.opened == suite.closed == 6
    lost = lost_episodes(tmp_path / LOST)
    assert {episode.task.id[-1] for episode in lost} == {"1", "3"}
    for episode in lost:
        assert episode.status is Status.INFRA_ERROR and episode.outcome is None and not episode.steps
        assert "the site is ill" in episode.error
        assert label(episode, suite).outcome is None
    assert len(ShardReader(tmp_path)) == 2
    suite.trouble = None
    tally = collect(config(), tmp_path)
    assert (tally.skipped, tally.status) == (2, {"finished": 2})
    assert lost_episodes(tmp_path / LOST) == [] and len(ShardReader(tmp_path)) == 4


def test_a_straggler_has_one_time_limit_for_all_its_tries_and_its_closing(use, tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts.engine.episode, "CLOSE_SECONDS", 1.0)

    class Straggler(CountingSession):
        async def close(self):
            await super().close()
            if self.task.id.endswith(".2"):
                await asyncio.sleep(2 * PATIENCE)

    async def trouble(session):
        if session.task.id.endswith(".2"):
            await asyncio.sleep(2 * PATIENCE)

    suite = use(CountingSuite(trouble))
    monkeypatch.setattr("tests.rollouts.sites.CountingSession", Straggler)
    began = time.monotonic()
    tally = collect(config(limits={"tries": 3, "episode_seconds": 8}), tmp_path)
    assert tally.status == {"finished": 3, "infra_error": 1} and tally.retries <= 1 and suite.opened == suite.closed
    assert "took more than 8 s" in lost_episodes(tmp_path / LOST)[0].error
    assert time.monotonic() - began < PATIENCE


def test_what_nobody_thought_of_costs_its_episode_alone(use, tmp_path, caplog, monkeypatch):
    class Odd(CountingSuite):
        async def open(self, task, context):
            session = await super().open(task, context)
            if task.id.endswith(".1"):
                session.state = unwritable
            return session

    async def unwritable():
        return {"presses": 1, "note": "half of a surrogate pair: \ud800"}

    async def trouble(session):
        if session.task.id.endswith(".2"):
            raise KeyError("odd")

    use(Odd(trouble))
    monkeypatch.setattr(logging.getLogger("rollouts"), "propagate", True)
    tally = collect(config(limits={"tries": 2}), tmp_path)
    assert tally.status == {"finished": 2, "infra_error": 2}
    errors = sorted(episode.error for episode in lost_episodes(tmp_path / LOST))
    assert errors[0] == "infrastructure: KeyError: 'odd'"
    assert (
        errors[1].startswith("site: the sites' state or evidence cannot be stored in a record: ") and "surrogates not allowed" in errors[1]
    )
    assert any(record.exc_info and "unexpected error" in record.getMessage() for record in caplog.records)


def test_nothing_but_infrastructure_errors_ends_the_run(use, tmp_path):
    async def trouble(session):
        raise OSError("down")

    use(CountingSuite(trouble))
    with pytest.raises(UserError, match=r"the last 3 episodes were lost .* site: reading the sites' state: down"):
        collect(config(episodes=50, limits={"tries": 1, "give_up_after": 3}), tmp_path)


# The endpoint.
