"""A suite of your own: a site with one page of three buttons, and the task to press one of them last.

    PYTHONPATH=examples mira collect --set suite.name=own_suite:Buttons --set policy.kind=random --set episodes=6 --out runs/buttons

prints how the episodes of a random policy ended. `mira label` and `mira evaluate` take the same suite.name.
"""

import dataclasses
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse

from mira_jax.trajectories.records import Evidence, Outcome, Subgoal, Task
from rollouts.suites.base import Session, Suite, take_turns
from rollouts.suites.server import LocalServer

COLOURS = ("red", "green", "blue")
FORM = "<form>" + "".join(f"<button name=press value={colour}>{colour}</button>" for colour in COLOURS) + "</form>"


class Buttons(Suite):
    name, hosts = "buttons", frozenset()

    @dataclasses.dataclass(frozen=True)
    class Options: ...

    def tasks(self, split, templates, count, seed):
        return [self.task(f"{colour}.{split}.{number}") for colour, number in take_turns(COLOURS, templates, split, count, seed)]

    def task(self, task_id):
        colour, split, number = task_id.split(".")
        where = {"suite": self.name, "sites": ("buttons",), "start_url": "__BUTTONS__/", "horizon": 3}
        return Task(id=task_id, template=colour, split=split, seed=int(number), intent=f'Press "{colour}" last.', **where)

    async def open(self, task, context):
        session = ButtonsSession()
        session.task, session.pressed, session.server = task, [], LocalServer(session)
        await session.server.start()  # one server per episode keeps episodes apart
        session.hosts, session.addresses = frozenset({session.server.host}), {"__BUTTONS__": f"http://{session.server.host}"}
        return session

    def judge(self, trajectory):
        success = trajectory.steps[-1].state["pressed"][-1:] == [trajectory.task.template]
        return Outcome(success=success, score=float(success), source="rule")

    def milestones(self, trajectory):
        reached = [(trajectory.task.template in step.state["pressed"],) for step in trajectory.steps]
        return (Subgoal(text="press the button", check="pressed"),), reached


class ButtonsSession(Session):
    async def __call__(self, scope, receive, send):  # the site, as an ASGI application
        self.pressed += parse_qs(scope["query_string"].decode()).get("press", [])
        await HTMLResponse(FORM)(scope, receive, send)

    async def state(self):
        return {"pressed": list(self.pressed)}

    async def evidence(self, page, answer, front=None):
        return Evidence(page=page, answer=answer)

    async def close(self):
        await self.server.stop()
