"""The report's step-by-step view of episodes: page, response, milestones and critic values at every step.

Pages and responses are untrusted. This module escapes control characters visibly and accepts only JPEG screenshots; the
template escapes the rest.
"""

import base64
import dataclasses
import re
from collections.abc import Sequence

from markupsafe import Markup

from mira_jax.trajectories.prompts import plan_text
from mira_jax.trajectories.records import Step, Trajectory
from rollouts.analysis.evaluation import Episode, Evaluation
from rollouts.analysis.failures import key_step
from rollouts.analysis.summary import Findings
from rollouts.pages import charts
from rollouts.pages.selection import choose, solved_by

_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


@dataclasses.dataclass(frozen=True)
class StepView:
    """Texts of a step as displayed: shortened, with control characters made visible. HTML is not escaped yet."""

    number: int
    response: str
    plan: str
    """The planner's checklist in the prompt, or empty."""
    reasoning: str
    error: str | None
    url: str
    observation: str
    cut: int
    """Number of the page's characters left out."""
    screenshot: str
    """Data URI, or empty."""
    reached: list[str]
    lost: list[str]
    milestones: list[tuple[str, bool]]
    scores: list[tuple[str, float]]
    measures: str
    key: bool


@dataclasses.dataclass(frozen=True)
class EpisodeView:
    id: str
    method: str
    result: str
    """success, failure or unjudged."""
    result_words: str
    facts: str
    detail: str
    answer: str | None
    """The message of exit(). None if exit() was not called."""
    chart: Markup
    steps: list[StepView]


@dataclasses.dataclass(frozen=True)
class TaskView:
    intent: str
    template: str
    kind: str
    """The methods that solved the task, as in `selection.ORDER`."""
    verdict: str
    episodes: list[EpisodeView]


def chosen_keys(evaluations: Sequence[Evaluation], findings: Findings, tasks: int) -> list[str]:
    """Returns the tasks to show, selected by `selection.choose`."""
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    return choose(by_name[findings.baseline].by_key, by_name[findings.treatment].by_key, tasks)


def task_views(keys: Sequence[str], evaluations: Sequence[Evaluation], findings: Findings, characters: int, room: int) -> list[TaskView]:
    """Returns each task of `keys` with one episode per method: the treatment's, the baseline's, then the others.

    Args:
        characters: maximum characters shown of a page's text and of a response, at each step.
        room: total bytes for screenshots. The first screenshots use it up.
    """
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    baseline, treatment = by_name[findings.baseline], by_name[findings.treatment]
    order = list({id(evaluation): evaluation for evaluation in (treatment, baseline, *evaluations)}.values())
    budget = _Budget(room)
    views = []
    for number, key in enumerate(keys, start=1):
        of_task = [(evaluation, evaluation.load(evaluation.by_key[key])) for evaluation in order if key in evaluation.by_key]
        successes = [trajectory for _, trajectory in of_task if trajectory.success]
        kind = solved_by(baseline.by_key[key].success, treatment.by_key[key].success)
        task = of_task[0][1].task
        views.append(
            TaskView(
                intent=_shown(task.intent, 600),
                template=task.template,
                kind=kind,
                verdict=_kind_words(kind, findings),
                episodes=[
                    _episode_view(f"{number}-{place}", evaluation, evaluation.by_key[key], trajectory, successes, characters, budget)
                    for place, (evaluation, trajectory) in enumerate(of_task, start=1)
                ],
            )
        )
    return views


def visible(text: str) -> str:
    """Makes control characters, bidirectional marks and zero-width characters visible, so that a page can't hide or reorder its text."""
    return _HIDDEN.sub(lambda found: f"\u27e8U+{ord(found.group()):04X}\u27e9", text)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _kind_words(kind: str, findings: Findings) -> str:
    if findings.baseline == findings.treatment:
        return {"both": "solved", "neither": "not solved"}[kind]
    only = {"treatment": f"only {findings.treatment}", "baseline": f"only {findings.baseline}"}
    return only.get(kind, f"{kind} solved it")


def _episode_view(
    number: str,
    evaluation: Evaluation,
    episode: Episode,
    trajectory: Trajectory,
    successes: Sequence[Trajectory],
    characters: int,
    budget: "_Budget",
) -> EpisodeView:
    value, potential = evaluation.scores("value", trajectory), evaluation.scores("potential", trajectory)
    key = key_step(trajectory, successes)
    names = [_shown(subgoal.text, 200) for subgoal in trajectory.subgoals]
    steps = []
    for place, step in enumerate(trajectory.steps):
        scores = [(symbol, numbers[place]) for symbol, numbers in (("V", value), ("P", potential)) if numbers]
        before = trajectory.steps[place - 1].milestones if place else ()
        steps.append(_step_view(step, place, place == key, before, names, scores, characters, budget))
    milestones = [step.milestones for step in trajectory.steps]
    title = f"{evaluation.name}: milestones and critics along the episode"
    result = ("success" if episode.success else "failure") if episode.judged else "unjudged"
    return EpisodeView(
        id=number,
        method=evaluation.name,
        result=result,
        result_words={"success": "solved", "failure": "not solved", "unjudged": "no outcome"}[result],
        facts=_facts(episode, trajectory, key),
        detail=_shown(trajectory.outcome.detail, 600) if trajectory.outcome else "",
        answer=None if trajectory.evidence.answer is None else _shown(trajectory.evidence.answer, characters),
        chart=charts.episode(title, value, potential, milestones, names, key, len(trajectory.steps)),
        steps=steps,
    )


def _facts(episode: Episode, trajectory: Trajectory, key: int | None) -> str:
    facts = [f"Ended: {trajectory.status.value.replace('_', ' ')} after {count(len(trajectory.steps), 'step')}"]
    if episode.failure:
        facts.append(f"class of failure: {episode.failure.value.replace('_', ' ')}")
    if key is not None:
        facts.append(f"key decision: step {key + 1}")
    if trajectory.error:
        facts.append(_shown(trajectory.error, 600))
    return "; ".join(facts) + "."


def _step_view(
    step: Step,
    place: int,
    key: bool,
    before: Sequence[bool],
    names: Sequence[str],
    scores: list[tuple[str, float]],
    characters: int,
    budget: "_Budget",
) -> StepView:
    """`before`: the milestones after the previous step. Empty at the first step."""
    named = list(zip(names, step.milestones, strict=False))
    changes = list(zip(named, before or [False] * len(named), strict=False))
    return StepView(
        number=place + 1,
        response=_shown(step.response, characters),
        plan=_shown(plan_text(step.plan, "webrl").rstrip(), characters),
        reasoning=_shown(step.reasoning, characters),
        error=step.error and _shown(step.error, characters),
        url=_shown(step.page.url, 400),
        observation=visible(step.page.observation[:characters]),
        cut=max(0, len(step.page.observation) - characters),
        screenshot=_screenshot(step.page.screenshot, budget),
        reached=[name for (name, done), was in changes if done and not was],
        lost=[name for (name, done), was in changes if was and not done],
        milestones=named,
        scores=scores,
        measures=_measures(step),
        key=key,
    )


def _measures(step: Step) -> str:
    tokens, parts = step.tokens, []
    if tokens.prompt or tokens.response:
        parts.append(f"{tokens.prompt} prompt and {tokens.response} response tokens")
    if (used := step.planner_tokens).prompt or used.response:
        parts.append(f"planner {used.prompt} prompt and {used.response} response tokens")
    for name in ("browser", "policy", "planner", "judge"):
        if seconds := getattr(step.seconds, name):
            parts.append(f"{name} {seconds:.2f} s")
    if step.log_prob is not None:
        parts.append(f"log-probability of the response {step.log_prob:.2f} nats")
    if step.cut:
        parts.append("the response was cut at its limit of tokens")
    return "; ".join(parts)


def _screenshot(picture: bytes | None, budget: "_Budget") -> str:
    """Returns a data URI if the picture is a JPEG and fits into the budget, else an empty string."""
    if not picture or not picture.startswith(b"\xff\xd8\xff") or not budget.take(len(picture) * 4 // 3 + 200):
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode()


def _shown(text: str, most: int) -> str:
    rest = f"\u2026 [{len(text) - most} more characters]" if len(text) > most else ""
    return visible(text[:most]) + rest


class _Budget:
    """Remaining bytes for screenshots."""

    def __init__(self, size: int):
        self.left = size

    def take(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True
