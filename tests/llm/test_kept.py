"""Resources that are kept open for code that is not asynchronous."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollouts.llm.kept import KeptOpen, together


class Resource:
    def __init__(self, failures=0):
        self.opened, self.failures, self.closed = 0, failures, threading.Event()

    async def __aenter__(self):
        self.opened += 1
        if self.opened <= self.failures:
            raise OSError(f"failure {self.opened}")
        self.loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_):
        self.closed.set()

    async def double(self, number):
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0.001)
        if number < 0:
            raise ValueError(number)
        return 2 * number


def test_a_resource_is_opened_once_for_all_threads_and_closed_when_it_is_not_used_any_more():
    resource = Resource()

    def use():
        kept = KeptOpen(resource)
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda number: kept.run(lambda one: one.double(number)), range(20))) == list(range(0, 40, 2))
        with pytest.raises(ValueError, match="-1"):
            kept.run(lambda one: one.double(-1))
        assert kept.run(lambda one: one.double(4)) == 8
        assert resource.opened == 1 and not resource.closed.is_set()

    use()
    gc.collect()
    assert resource.closed.wait(10)


def test_a_failure_to_open_is_raised_and_the_next_use_tries_again():
    kept = KeptOpen(resource := Resource(failures=1))
    with pytest.raises(OSError, match="failure 1"):
        kept.run(lambda one: one.double(1))
    assert kept.run(lambda one: one.double(1)) == 2 and resource.opened == 2


async def test_the_error_of_the_first_is_raised_when_all_have_ended():
    ended = []

    async def work(number):
        await asyncio.sleep(0.002 * number)
        ended.append(number)
        if number in (1, 2):
            raise ValueError(number)
        return number

    assert await together(work(number) for number in (0, 3)) == [0, 3]
    with pytest.raises(ValueError, match="1"):
        await together(work(number) for number in range(4))
    assert ended == [0, 3, 0, 1, 2, 3]
