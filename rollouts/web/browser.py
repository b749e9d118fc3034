"""One Chromium shared by many episodes: finds it, starts it behind the network fences, and restarts it when it dies.

python -m rollouts.web.browser     # starts it once, and reports what is missing if it does not start
"""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Awaitable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from msgspec import Meta
from playwright.async_api import Browser, BrowserContext, Error, Playwright, async_playwright

from mira_jax.config import Count, NonNegative, Positive
from mira_jax.errors import ConfigError, UserError, first_line
from rollouts.errors import BrowserError
from rollouts.web import playwright_errors
from rollouts.web.fence import Fence

Result = TypeVar("Result")

EXECUTABLES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Executables to look for, in this order. The headless shell takes about twice as many steps per second as a full browser."""

OTHER_BROWSER = (
    "install the distribution's package (apt-get install chromium-headless-shell), "
    "or run `python -m playwright install --with-deps chromium-headless-shell`, or set browser.executable to a Chromium"
)
NO_BROWSER = f"no browser found: {OTHER_BROWSER}"
NO_SANDBOX = (
    "this system does not let this user start Chromium's sandbox: allow unprivileged user namespaces, or install the "
    "distribution's chromium-sandbox; in a container or virtual machine that holds nothing of value, set browser.sandbox=false"
)

ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    # This flag replaces Playwright's own list, so that list is repeated as far as it matters for headless pages. Two are added.
    # RenderDocument: creates a new frame in the browser process at every navigation, a quarter of the processor time of a step.
    # DeferRendererTasksAfterInput: may delay tasks started by a click until the next frame, after the pause in `tabs.py`.
    "--disable-features=AvoidUnnecessaryBeforeUnloadCheckSync,AvoidCorsURLLoaderRestartOnRedirect,DestroyProfileOnBrowserClose,"
    "HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,MediaRouter,NetworkTimeServiceQuerying,OptimizationHints,PaintHolding,"
    "PreconnectToSearch,ThirdPartyStoragePartitioning,Translate,RenderDocument,DeferRendererTasksAfterInput",
)

ENVIRONMENT = frozenset((
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "LD_LIBRARY_PATH",
))  # fmt: skip
ENVIRONMENT_PREFIXES = ("LC_", "XDG_", "FONTCONFIG_", "PLAYWRIGHT_BROWSERS_", "PLAYWRIGHT_NODEJS_")
"""Environment variables passed on to the driver and the browser."""


@dataclasses.dataclass(frozen=True)
class BrowserConfig:
    driver: Literal["chromium", "asgi"] = "chromium"
    """chromium: a real browser. asgi: interprets the pages of the suite's applications in this process, without a browser. It is faster,
    and serves only suites whose pages are rendered by the server, such as the arena."""
    executable: str | None = None
    """Path of a Chromium. Default: chromium-headless-shell or chromium on PATH, else Playwright's own."""
    contexts: Count = 4
    """Number of concurrent episodes, each in its own browser context."""
    width: Count = 1280
    """Width of the viewport in pixels."""
    height: Count = 720
    """Height of the viewport in pixels."""
    draw: bool = True
    """Whether pages are painted. Without painting a step takes about a third less processor time, but there are no animation frames and
    no screenshots. Turn it off only for sites whose pages are rendered by the server."""
    screenshots: bool = False
    """Records a JPEG screenshot of every page that the policy saw."""
    screenshot_quality: Annotated[int, Meta(ge=0, le=100)] = 50
    """JPEG quality in percent."""
    sandbox: bool = True
    """Enables Chromium's sandbox. If it can't start, the command ends. Chromium does not support it for root."""
    launch_seconds: Positive = 30.0
    """Maximum seconds for the browser to start."""
    call_seconds: Positive = 10.0
    """Maximum seconds of one call to the browser."""
    load_seconds: Positive = 15.0
    """Maximum seconds for a page to load after an action."""
    settle_seconds: NonNegative = 1.5
    """Maximum seconds, after an action, to wait for requests that scripts of the page send."""

    def __post_init__(self) -> None:
        if self.screenshots and not self.draw:
            raise ConfigError("screenshots", "needs $.draw: a page that is not painted has no picture")
        if self.screenshots and self.driver == "asgi":
            raise ConfigError("screenshots", "needs $.driver=chromium: the driver asgi paints no pages")


async def bounded(awaitable: Awaitable[Result], seconds: float, what: str) -> Result:
    """Awaits one browser call for at most `seconds`. Playwright's own timeouts do not cover every call.

    Raises:
        BrowserError: the call failed, or took longer.
    """
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except TimeoutError:
        raise BrowserError(f"{what} took more than {seconds:g} s") from None
    except Error as error:
        raise BrowserError(f"{what}: {first_line(error)}") from error


def find_executables(configured: str | None) -> list[str | None]:
    """Returns the Chromium executables to try, in order. None stands for Playwright's own, if it was downloaded.

    Raises:
        UserError: the configured path is not an executable file.
    """
    if configured:
        path = shutil.which(configured) or configured
        if not (Path(path).is_file() and os.access(path, os.X_OK)):
            raise ConfigError("browser.executable", f"{configured} is not an executable file")
        return [path]
    return [*(path for name in EXECUTABLES if (path := shutil.which(name))), None]


class BrowserPool:
    """One browser, shared by concurrent episodes, each behind its own fence. `async with` starts and stops it.

    A browser that died or hangs is restarted by the next episode that requests a context.
    """

    def __init__(self, config: BrowserConfig, hosts: Iterable[str] = ()):
        """`hosts`: the `host:port` that a context may reach until `allow` is called."""
        self.config = config
        self.hosts = frozenset(hosts)
        self.launches = 0
        self._fences = [Fence() for _ in range(config.contexts)]
        self._free: asyncio.Queue[Fence] = asyncio.Queue()
        self._fenced: dict[BrowserContext, Fence] = {}
        self._executables = find_executables(config.executable)
        """Reduced to one executable once that has started."""
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Raises UserError if there is no browser, or it does not start."""
        try:
            for fence in self._fences:
                await fence.start()
                self._free.put_nowait(fence)
            await self._alive()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        browser, playwright = self._browser, self._playwright
        self._browser = self._playwright = None
        try:
            await self._end(browser)
        finally:
            for fence in self._fences:
                fence.stop()
            await _stop(playwright)

    async def context(self) -> BrowserContext:
        """Waits until one of `config.contexts` is free, and returns a new, empty context. Raises BrowserError."""
        fence = await bounded(self._free.get(), self.config.launch_seconds, "waiting for another context to close")
        try:
            context = await self._context(fence)
        except BaseException:
            self._free.put_nowait(fence)
            raise
        fence.allow(self.hosts)
        self._fenced[context] = fence
        return context

    async def _context(self, fence: Fence) -> BrowserContext:
        browser = await self._alive()
        try:
            return await bounded(
                browser.new_context(
                    viewport={"width": self.config.width, "height": self.config.height},
                    # `<-loopback>` removes Chromium's default rule, by which loopback addresses bypass the proxy.
                    proxy={"server": f"socks5://{fence.address}", "bypass": "<-loopback>"},
                    accept_downloads=False,
                    service_workers="block",
                    locale="en-US",
                    timezone_id="UTC",
                    reduced_motion="reduce",
                ),
                self.config.launch_seconds,
                "opening a context",
            )
        except BrowserError:
            await self._end(browser)
            raise

    def allow(self, context: BrowserContext, hosts: Iterable[str]) -> None:
        """Allows `context` to reach `hosts` (`host:port`) and nothing else."""
        self._fenced[context].allow(hosts)

    async def close(self, context: BrowserContext) -> None:
        """Closes a context, once. If it does not close in time, the whole browser is ended, so that nothing leaks."""
        try:
            await asyncio.wait_for(context.close(), self.config.call_seconds)
        except (TimeoutError, Error):
            await self._end(context.browser)
        except asyncio.CancelledError:
            # This context may still use its fence, which must not be shared with the next one. The next launch ends this browser.
            if context.browser is self._browser:
                self._browser = None
            raise
        finally:
            fence = self._fenced.pop(context, None)
            if fence is not None:
                fence.allow(())
                self._free.put_nowait(fence)

    async def _alive(self) -> Browser:
        async with self._lock:
            if self._browser is None or not self._browser.is_connected():
                self._browser = await (self._launch(self._executables[0]) if self.launches else self._first())
            return self._browser

    async def _first(self) -> Browser:
        """Starts the first executable that works: one on PATH may be a stub, or may lack a library. Raises UserError."""
        failures = []
        sandbox_failed = False
        for executable in self._executables:
            try:
                browser = await self._launch(executable)
            except BrowserError as error:
                sandbox_failed |= playwright_errors.is_no_sandbox(error.__cause__)
                if executable or not playwright_errors.is_not_installed(error.__cause__):
                    failures.append(f"{executable or 'the downloaded browser'} does not start ({error})")
                continue
            self._executables = [executable]
            return browser
        if sandbox_failed:
            raise UserError(NO_SANDBOX)
        raise UserError(f"{failures[0]}; {OTHER_BROWSER}" if failures else NO_BROWSER)

    async def _end(self, browser: Browser | None) -> None:
        """Closes the browser. If it does not answer, `_launch` ends it together with its driver."""
        if browser is self._browser:
            self._browser = None
        if browser is None or not browser.is_connected():
            return
        try:
            await asyncio.wait_for(browser.close(), self.config.call_seconds)
        except (TimeoutError, Error):
            return

    async def _launch(self, executable: str | None) -> Browser:
        if self.launches:
            # The driver itself may have died. Only stopping the driver ends a browser that hangs.
            old, self._playwright = self._playwright, None
            await _stop(old)
        if self._playwright is None:
            with _bare_environment():
                self._playwright = await bounded(async_playwright().start(), self.config.launch_seconds, "starting the browser's driver")
        arguments = [*ARGUMENTS, f"--host-resolver-rules={resolver_rules(fence.address for fence in self._fences)}"]
        if not self.config.draw:
            arguments.append("--disable-threaded-compositing")
        self.launches += 1
        return await bounded(
            self._playwright.chromium.launch(
                executable_path=executable,
                chromium_sandbox=self.config.sandbox and os.geteuid() != 0,
                args=arguments,
                handle_sigint=False,
                handle_sigterm=False,
                handle_sighup=False,
                timeout=self.config.launch_seconds * 1000,
            ),
            self.config.launch_seconds + 1,
            "starting the browser",
        )


@contextlib.contextmanager
def _bare_environment() -> Iterator[None]:
    """Reduces the environment, for processes started meanwhile, to the variables that a browser needs: no keys, no accounts.

    Playwright passes its own environment to the driver, and the driver passes it to the browser.
    """
    hidden = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT and not name.startswith(ENVIRONMENT_PREFIXES)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


async def _stop(playwright: Playwright | None) -> None:
    """Stops a driver, which ends every browser that it started."""
    if playwright is None:
        return
    try:
        await asyncio.wait_for(playwright.stop(), 10)
    except (TimeoutError, Error):
        return


def resolver_rules(proxies: Iterable[str]) -> str:
    """Chromium's `--host-resolver-rules`: only the proxies resolve. Literal IP addresses are blocked as well.

    Traffic that ignores its context's proxy therefore reaches nothing. Only the first matching rule applies.
    """
    return " , ".join([*(f"MAP {proxy} {proxy}" for proxy in proxies), "MAP * ~NOTFOUND"])


async def _try() -> None:
    async with BrowserPool(BrowserConfig()):
        pass


if __name__ == "__main__":
    try:
        asyncio.run(_try())
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
