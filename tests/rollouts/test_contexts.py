"""Contexts of a browser, each behind its own fence: what they reach, how many there are, and what remains when one or the browser ends."""

import asyncio
import contextlib
import os
import signal

import pytest
from playwright.async_api import Error

from rollouts.errors import BrowserError
from rollouts.web.browser import BrowserConfig, BrowserPool
from tests.rollouts.sites import Site, descendants


async def test_a_context_reaches_what_the_suite_told_of_until_its_session_says_less():
    with Site({"/": "<p>a"}) as first, Site({"/": "<p>b"}) as second:
        async with BrowserPool(BrowserConfig(contexts=1, draw=False, launch_seconds=20), (first.host, second.host)) as browsers:
            context = await browsers.context()
            page = await context.new_page()
            await page.goto(f"http://{second.host}/")
            browsers.allow(context, [first.host])
            await page.goto(f"http://{first.host}/")
            with pytest.raises(Error, match="ERR_SOCKS_CONNECTION_FAILED"):
                await page.goto(f"http://{second.host}/")
            await browsers.close(context)
            context = await browsers.context()
            page = await context.new_page()
            await page.goto(f"http://{second.host}/")
            await browsers.close(context)


async def test_more_contexts_than_were_asked_for_must_wait():
    async with BrowserPool(BrowserConfig(contexts=1, draw=False, launch_seconds=20)) as browsers:
        context = await browsers.context()
        waiting = asyncio.create_task(browsers.context())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await browsers.close(context)
        await browsers.close(await waiting)
        browsers._free.get_nowait()
        object.__setattr__(browsers.config, "launch_seconds", 0.1)
        with pytest.raises(BrowserError, match="waiting for another context to close took more than"):
            await browsers.context()


async def _reaches(context, site):
    page = await context.new_page()
    await page.goto(f"http://{site.host}/")
    return await page.inner_text("p") == "here"


async def test_fences_of_a_browser_that_died_are_free_again_each_once():
    others = {process for process, _ in descendants(os.getpid())}
    with Site({"/": "<p>here"}) as site:
        async with BrowserPool(BrowserConfig(contexts=2, draw=False, launch_seconds=20), [site.host]) as browsers:
            lost = [await browsers.context() for _ in range(2)]
            for process, name in descendants(os.getpid()):
                if name.startswith("chrom") and process not in others:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)

            async def soon():
                try:
                    return await browsers.context()
                except BrowserError:  # the browser was not seen to be dead yet
                    return await browsers.context()

            waiting = {asyncio.create_task(soon()) for _ in range(3)}
            await asyncio.gather(*(browsers.close(context) for context in lost + lost))
            done = set()
            while len(done) < 2:
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            contexts = [task.result() for task in done]
            assert len({browsers._fenced[context] for context in contexts}) == 2
            assert [await _reaches(context, site) for context in contexts] == [True, True]
            assert not any(task.done() for task in waiting), "two fences, two contexts"
            await browsers.close(contexts[0])
            assert await _reaches(await waiting.pop(), site)
            assert browsers.launches == 2


async def test_a_context_whose_closing_was_given_up_shares_its_fence_with_nobody():
    with Site({"/": "<p>here"}) as site:
        async with BrowserPool(BrowserConfig(contexts=1, draw=False, launch_seconds=20), [site.host]) as browsers:
            old = await browsers.context()
            await old.new_page()
            closing = asyncio.create_task(browsers.close(old))
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert await _reaches(await browsers.context(), site)
            assert browsers.launches == 2
