"""Reads the episodes of WebRL (arXiv 2411.02337, github.com/THUDM/WebRL), in two forms.

A rollout folder, as its interaction code and `scripts/process_data.py` write it:

    traces/ID.jsonl          a line per step: trace_id, index, prompt, html, response, target (the instruction)
    actions/ID.json          score, task_id, actions
    fixed_traces/ID.jsonl    the lines of traces/ with fixed_response and score; read instead of traces/ if it exists

Or a JSON file of training data: a list of trajectories, each a list of the items that `process_data.py` saves with `torch.save`. Such a
`.pt` file is a pickle, which is never read here.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from mira_jax.errors import UserError
from mira_jax.interchange import sources
from mira_jax.trajectories import actions
from mira_jax.trajectories.prompts import OLD_PAGE
from mira_jax.trajectories.records import Action, Evidence, Outcome, Page, Status, Step, Task, Trajectory

FORMAT = "webrl"
SUCCESS = 0.5
"""Least score of a success, as in `process_data.py`."""
MARK = "<|start_header_id|>"
USER = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
ASSISTANT = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
CALLS = ("exit(", "do(", "go_backward(", "go_forward(")
REMEDY = (
    "name a rollout folder with traces/, or training data as JSON: in WebRL's environment, "
    """python -c 'import json, torch; json.dump(torch.load("data.pt"), open("data.json", "w"))'"""
)


class TraceLine(Struct, frozen=True, kw_only=True):
    trace_id: int | str
    index: int
    html: str
    response: str
    target: str
    fixed_response: str | None = None
    score: float | None = None


class Score(Struct, frozen=True):
    """A file of actions/."""

    score: float


class Item(Struct, frozen=True, kw_only=True):
    """A step of the training data."""

    observation: str
    """The prompt."""
    task: str
    action: str
    """The response."""
    trajectory_reward: float
    done: bool


def files(path: Path) -> list[Path]:
    if not path.is_dir():
        return sources.list_files(path, ".json", "training data", REMEDY)
    for name in ("fixed_traces", "traces"):
        if (path / name).is_dir():
            return sources.list_files(path / name, ".jsonl", "traces", REMEDY)
    return sources.list_files(path, ".json", "training data, traces/ or fixed_traces/", REMEDY)


def episodes(path: Path, settings: sources.Foreign, attempts: sources.Attempts) -> Iterator[tuple[str, sources.Found]]:
    try:
        if path.suffix == ".jsonl":
            yield str(path), attempts.complete(read_trace(path, settings), str(path))
            return
        data = sources.parse(sources.read_bytes(path), list[list[Item]], str(path))
    except UserError as error:
        yield str(path), error
        return
    for number, items in enumerate(data):
        source = f"{path}: [{number}]"
        try:
            yield source, attempts.complete(read_items(items, settings, source), source)
        except UserError as error:
            yield source, error


def read_trace(path: Path, settings: sources.Foreign) -> Trajectory:
    """The episode of one trace. A last line with an empty response is no step: the rollout was stopped there."""
    lines = []
    for number, (source, data) in enumerate(sources.lines(path)):
        line = sources.parse(data, TraceLine, source)
        if line.index != number:
            raise UserError(f"{source}: index: {line.index}, expected {number}; the steps of a trace are numbered from 0")
        if lines and (line.trace_id, line.target) != (lines[0].trace_id, lines[0].target):
            raise UserError(f"{source}: trace_id: the line belongs to another trace, {line.trace_id!r}")
        lines.append(line)
    end = lines.pop().html if lines and not _response(lines[-1]) else None
    if not lines:
        raise UserError(f"{path}: holds no step")
    score, source = _score(path, lines[-1])
    steps = [_step(place, line.html, _response(line)) for place, line in enumerate(lines)]
    task = sources.foreign_task(FORMAT, lines[0].target, len(steps), settings, str(lines[0].trace_id))
    return _trajectory(task, steps, score, source, settings, end)


def _response(line: TraceLine) -> str:
    return line.response if line.fixed_response is None else line.fixed_response


def _score(path: Path, last: TraceLine) -> tuple[float | None, str]:
    """The score, None if unknown, and its source. WebRL's rules write it to actions/; its ORM overwrites that of fixed_traces/."""
    actions_file = path.parent.parent / "actions" / f"{path.stem}.json"
    by_rule = None
    if actions_file.exists():
        by_rule = sources.parse(sources.read_bytes(actions_file), Score, str(actions_file)).score
    if last.score is None:
        return by_rule, "rule"
    return last.score, "rule" if last.score == by_rule else "orm"


def read_items(items: Sequence[Item], settings: sources.Foreign, source: str) -> Trajectory:
    """The episode of one trajectory of the training data. Pages are taken from the prompts, of which everything else must be as WebRL
    writes it."""
    if not items:
        raise UserError(f"{source}: holds no step")
    intent, steps, history = items[0].task, [], ""
    for place, item in enumerate(items):
        where = f"{source}[{place}]"
        if item.task != intent or item.trajectory_reward != items[0].trajectory_reward:
            raise UserError(f"{where}: task and trajectory_reward differ from those of [0]; the items are of several trajectories")
        if item.done != (place == len(items) - 1):
            raise UserError(f"{where}.done: {str(item.done).lower()}, but the list has {len(items)} items; it is no whole trajectory")
        head, tail = f"Task Instruction: {intent}\n\n{history}Round {place}\n\n{USER}", f"\n\n{ASSISTANT}"
        observation = item.observation
        page = observation[len(head) : len(observation) - len(tail)]
        # A mark in the page means that the prompt has more rounds than the list.
        if not (observation.startswith(head) and observation.endswith(tail) and len(observation) >= len(head) + len(tail)) or MARK in page:
            raise UserError(f"{where}.observation: not WebRL's prompt of round {place} after the actions before it")
        steps.append(_step(place, page, item.action))
        history += f"Round {place}\n\n{USER}{OLD_PAGE if place else intent}\n\n{ASSISTANT}{item.action}\n\n"
    task = sources.foreign_task(FORMAT, intent, len(steps), settings)
    return _trajectory(task, steps, items[0].trajectory_reward, "orm", settings)


def _trajectory(
    task: Task, steps: list[Step], score: float | None, source: str, settings: sources.Foreign, end: str | None = None
) -> Trajectory:
    """`end`: the page after the last step."""
    last = steps[-1].action
    answer = last.argument if last is not None and last.name == actions.EXIT else None
    unjudged = score is not None and score < 0
    outcome = Outcome(success=score >= SUCCESS, score=score, source=source) if score is not None and not unjudged else None
    status = Status.INFRA_ERROR if unjudged else Status.HORIZON if answer is None else Status.FINISHED
    return Trajectory(
        id="",
        task=task,
        policy=sources.foreign_policy(settings, FORMAT),
        steps=tuple(steps),
        status=status,
        evidence=Evidence(answer=answer, page=None if end is None else Page(url="", observation=end)),
        outcome=outcome,
        error=f"WebRL did not evaluate the run: score {score}" if unjudged else "",
    )


def _step(place: int, html: str, response: str) -> Step:
    action, error = parse_response(response)
    return Step(index=place, page=Page(url="", observation=html), response=response, action=action, error=error)


def parse_response(response: str) -> tuple[Action | None, str | None]:
    """The action or the error. WebRL also accepts other text before the last call, which our grammar does not."""
    error = None
    for text in (response, response[max(0, *map(response.rfind, CALLS)) :].strip()):
        try:
            return actions.parse(text), None
        except actions.ParseError as problem:
            error = error or str(problem)
    return None, error
