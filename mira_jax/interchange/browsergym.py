"""Reads episodes of BrowserGym from JSON lines: one episode per line.

AgentLab pickles its steps, and pickles are never read here. `examples/agentlab_to_jsonl.py`, run in AgentLab's own environment, writes
this form.
"""

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from mira_jax.errors import UserError
from mira_jax.interchange import browsergym_actions, sources
from mira_jax.trajectories import actions
from mira_jax.trajectories.records import Action, Evidence, Outcome, Page, Status, Step, Trajectory

REMEDY = "write JSON lines with examples/agentlab_to_jsonl.py, in AgentLab's environment"
SOLVED = 1.0
"""Least reward of a success. The rewards of BrowserGym's benchmarks are in [0, 1]."""


class BrowserGymPage(Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    page: str
    """The text that the agent read, such as obs["pruned_html"] or obs["axtree_txt"]."""


class BrowserGymStep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str
    page: str
    action: str
    """As passed to `env.step`."""
    think: str = ""
    error: str = ""
    """The next observation's `last_action_error`."""


class BrowserGymEpisode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line."""

    task: str
    """For example `webarena.310`."""
    seed: int = 0
    agent: str
    goal: str
    max_steps: int | None = None
    steps: list[BrowserGymStep]
    end: BrowserGymPage | None = None
    """The page after the last action."""
    reward: float | None = None
    """The sum of the rewards. None: unknown."""
    truncated: bool = False
    error: str = ""
    """Why the run broke off."""


def files(path: Path) -> list[Path]:
    return sources.list_files(path, ".jsonl", "episodes", REMEDY)


def episodes(path: Path, settings: sources.Foreign, attempts: sources.Attempts) -> Iterator[tuple[str, sources.Found]]:
    try:
        for source, line in sources.lines(path):
            try:
                yield source, attempts.complete(read(sources.parse(line, BrowserGymEpisode, source), settings, source), source)
            except UserError as error:
                yield source, error
    except UserError as error:
        yield str(path), error


def read(episode: BrowserGymEpisode, settings: sources.Foreign, source: str) -> Trajectory:
    """Raises UserError if an action has no counterpart in our grammar, or if the episode goes on after its end."""
    if not episode.steps:
        raise UserError(f"{source}: steps: the episode has none")
    if episode.reward is not None and not 0 <= episode.reward <= 1:
        raise UserError(f"{source}: reward: {episode.reward} is not in [0, 1]")
    steps = tuple(_step(step, place, source) for place, step in enumerate(episode.steps))
    for place, step in enumerate(steps[:-1]):
        if step.action is not None and step.action.name == actions.EXIT:
            raise UserError(f"{source}: steps[{place}].action: ends the episode, but {len(steps) - place - 1} steps follow")
    last = steps[-1].action
    answer = last.argument if last is not None and last.name == actions.EXIT else None
    outcome = None
    if episode.reward is not None and not episode.error:
        outcome = Outcome(success=episode.reward >= SOLVED, score=episode.reward, source="rule", detail="BrowserGym's reward")
    ended = answer is not None or not episode.truncated
    return Trajectory(
        id="",
        task=sources.foreign_task("browsergym", episode.goal, episode.max_steps or len(steps), settings, episode.task, episode.seed),
        policy=sources.foreign_policy(settings, episode.agent),
        steps=steps,
        status=Status.INFRA_ERROR if episode.error else Status.FINISHED if ended else Status.HORIZON,
        evidence=Evidence(answer=answer, page=Page(url=episode.end.url, observation=episode.end.page) if episode.end else None),
        outcome=outcome,
        error=episode.error,
    )


def _step(step: BrowserGymStep, place: int, source: str) -> Step:
    action, error = _action(step, f"{source}: steps[{place}].action")
    return Step(
        index=place,
        page=Page(url=step.url, observation=step.page),
        response=actions.format_action(action) if action else step.action,
        reasoning=step.think,
        action=action,
        error=error,
    )


def _action(step: BrowserGymStep, where: str) -> tuple[Action | None, str | None]:
    """The action, and the error that BrowserGym reported. Text that is no action is kept only if BrowserGym refused it, too: its parser
    also finds calls within other text."""
    try:
        return browsergym_actions.parse(step.action), step.error or None
    except browsergym_actions.MalformedError as error:
        if step.error:
            return None, step.error
        raise UserError(f"{where}: {error}") from None
    except browsergym_actions.NoCounterpartError as error:
        raise UserError(f"{where}: {error}") from None
