"""Keeps an asynchronous resource open for code that is not asynchronous, such as the rules of a suite."""

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Resource = TypeVar("Resource")
Answer = TypeVar("Answer")


class KeptOpen(Generic[Resource]):
    """An asynchronous context manager, such as a `Role`. It is opened at its first use, in a thread with an event loop. Several threads
    may use it at once. It is closed when nothing refers to this object any more, or when the program ends."""

    def __init__(self, manager: contextlib.AbstractAsyncContextManager[Resource]):
        self._manager = manager
        self._lock = threading.Lock()
        self._kept: tuple[asyncio.AbstractEventLoop, Resource] | None = None

    def run(self, work: Callable[[Resource], Coroutine[Any, Any, Answer]]) -> Answer:
        """Runs a coroutine that uses the resource, and waits for its result. Raises what the coroutine or the opening raises."""
        with self._lock:
            loop, resource = self._kept = self._kept or self._open()
        future = asyncio.run_coroutine_threadsafe(work(resource), loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _open(self) -> tuple[asyncio.AbstractEventLoop, Resource]:
        opened: Future[tuple[asyncio.AbstractEventLoop, Resource, asyncio.Event]] = Future()
        threading.Thread(target=lambda manager: asyncio.run(_keep(manager, opened)), args=(self._manager,), daemon=True).start()
        loop, resource, end = opened.result()
        weakref.finalize(self, _end, loop, end)
        return loop, resource


async def _keep(manager: contextlib.AbstractAsyncContextManager[Resource], opened: Future[Any]) -> None:
    """Opens the resource and closes it at the event that is given to `opened`."""
    try:
        async with manager as resource:
            end = asyncio.Event()
            opened.set_result((asyncio.get_running_loop(), resource, end))
            await end.wait()
    except BaseException as error:
        if opened.done():
            raise
        opened.set_exception(error)


def _end(loop: asyncio.AbstractEventLoop, end: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(end.set)


async def together(work: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Runs coroutines concurrently and returns their results in order. If some fail, the error of the first is raised when all have
    ended, so that the answers of the others are in the cache."""
    results = await asyncio.gather(*work, return_exceptions=True)
    found = [result for result in results if not isinstance(result, BaseException)]
    if len(found) < len(results):
        raise next(result for result in results if isinstance(result, BaseException))
    return found
