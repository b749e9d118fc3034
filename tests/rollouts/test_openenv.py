"""The arena as an environment of OpenEnv, used by OpenEnv's own client over a real WebSocket."""

import asyncio
import json
import re
import threading

import httpx
import pytest
import uvicorn

pytest.importorskip("openenv.core", reason="the package openenv is not installed")

from openenv.core import GenericEnvClient
from websockets.sync.client import connect

from mira_jax.trajectories.prompts import Round
from rollouts.engine.episode import LimitConfig
from rollouts.engine.worker import driver_of
from rollouts.openenv.environment import Tasks, make_app
from rollouts.suites.arena.suite import ArenaSuite
from rollouts.web.browser import BrowserConfig
from rollouts.web.observation import ObservationConfig

pytestmark = pytest.mark.timeout(300)
COUNT = 6


@pytest.fixture(scope="module")
def address():
    """A server on the arena's shop, for two sessions at once."""
    box: dict = {}
    ready = threading.Event()

    async def serve():
        suite = ArenaSuite()
        async with driver_of(BrowserConfig(driver="asgi", contexts=2), suite) as driver:
            app = make_app(Tasks(suite, ["buy"], COUNT, 0), driver, ObservationConfig(handles="name"), LimitConfig(parse_failures=2), 2)
            server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="warning"))
            serving = asyncio.ensure_future(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            box.update(server=server, port=server.servers[0].sockets[0].getsockname()[1])
            ready.set()
            await serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    yield f"http://127.0.0.1:{box['port']}"
    box["server"].should_exit = True
    thread.join(30)


def act(env, respond, **which):
    """Runs an episode. `respond` maps a page to a response. Returns the results."""
    results = [env.reset(**which)]
    while not results[-1].done:
        results.append(env.step({"response": respond(results[-1].observation)}))
    return results


class Expert:
    def __init__(self, task_id):
        suite = ArenaSuite()
        self.task = suite.task(task_id)
        self.expert, self.rounds = suite.expert(self.task), []

    def __call__(self, observation):
        if self.rounds:
            self.rounds[-1] = Round(self.rounds[-1].response, observation["error"] or None)
        response = self.expert.respond(self.task, self.rounds, observation["page"])
        self.rounds.append(Round(response))
        return response


def test_an_expert_behind_their_client_is_rewarded(address):
    tasks = httpx.post(f"{address}/arena/tasks", json={"split": "test"}).json()["tasks"]
    assert len(tasks) == COUNT == httpx.post(f"{address}/arena/num_tasks", json={"split": "test"}).json()["num_tasks"]
    assert httpx.post(f"{address}/arena/task", json={"split": "test", "index": 2}).json()["task"] == tasks[2]
    assert httpx.post(f"{address}/arena/task", json={"split": "test", "index": COUNT}).status_code == 400
    assert 'do(action="Click"' in httpx.get(f"{address}/metadata").json()["description"]
    wanted = tasks[2]["id"]
    with GenericEnvClient(base_url=address).sync() as env:
        results = act(env, Expert(wanted), split="test", index=2)
        first, last = results[0], results[-1]
        assert first.observation["instruction"] == ArenaSuite().task(wanted).intent and "<" in first.observation["page"]
        assert (first.reward, first.done) == (None, False) and [one.reward for one in results[1:-1]] == [None] * (len(results) - 2)
        assert last.done and last.reward == 1.0 and last.observation["metadata"]["status"] == "finished"
        assert last.observation["metadata"]["task"] == wanted and all(last.observation["metadata"]["milestones"])
        state = env.state()
        assert state["task"] == wanted and state["step_count"] == len(results) - 1
        # The same session goes on with another episode, here by its id, and a failure is worth 0.
        results = act(env, lambda _: 'exit(message="done")', task=wanted)
        assert results[-1].reward == 0.0 and results[-1].done


def test_what_cannot_be_read_is_shown_and_ends_the_episode_at_the_limit(address):
    with GenericEnvClient(base_url=address).sync() as env:
        env.reset(seed=3)
        shown = env.step({"response": "do(everything)"})
        assert not shown.done and shown.observation["error"] and shown.observation["page"]
        ended = env.step({"response": "\u0000\ud83d\ude00" * 500})
        assert ended.done and ended.reward == 0.0 and ended.observation["metadata"]["status"] == "parse_failures"
        with pytest.raises(RuntimeError, match="no episode is running"):
            env.step({"response": "more"})


def test_draws_are_repeatable(address):
    with GenericEnvClient(base_url=address).sync() as env:
        drawn = [env.reset(seed=seed).observation["instruction"] for seed in (1, 1, 2, 3, 4, 5, 6, 7)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1


WRONG = [
    {"task": "shop.nothing"}, {"task": 7}, {"split": "dev"}, {"index": COUNT}, {"index": -1}, {"index": "2"}, {"tsak": "x"},
    {"seed": "x"}, {"task": "x" * 100_000},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:30])
def test_a_wrong_reset_is_refused_and_the_session_goes_on(address, wrong):
    with GenericEnvClient(base_url=address).sync() as env:
        with pytest.raises(RuntimeError):
            env.reset(**wrong)
        assert env.reset(index=0).observation["page"]


def test_garbage_over_the_socket_is_refused_and_the_session_goes_on(address):
    with connect(re.sub("^http", "ws", address) + "/ws", max_size=None) as socket:
        steps = ({"response": 5}, {"response": "x", "more": 1}, {"response": "x" * 200_000}, {})
        for garbage in ("{", *(json.dumps({"type": "step", "data": data}) for data in steps)):
            socket.send(garbage)
            assert json.loads(socket.recv(timeout=60))["type"] == "error"
        socket.send(json.dumps({"type": "reset", "data": {"index": 1}}))
        assert json.loads(socket.recv(timeout=60))["data"]["observation"]["page"]


def test_sessions_are_apart_and_limited_and_a_client_that_leaves_frees_its_place(address):
    with GenericEnvClient(base_url=address).sync() as one, GenericEnvClient(base_url=address).sync() as other:
        first, second = one.reset(index=0), other.reset(index=1)
        assert first.observation["instruction"] != second.observation["instruction"]
        assert other.step({"response": 'exit(message="")'}).done
        assert not one.step({"response": "go_backward()"}).done
        with pytest.raises(Exception, match=r"(?i)capacity|sessions"), GenericEnvClient(base_url=address).sync() as third:
            third.reset()
    for _ in range(3):
        with GenericEnvClient(base_url=address).sync() as env:
            env.reset(index=0)
