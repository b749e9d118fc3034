"""Writes an episode as ATIF. What ATIF has no field for is in `extra.mira_jax`, so that `atif_read` returns the equal record.

The first step is the user's, with the task. The second is the system's, with the first page, if there is one. Each step of the agent is
a response, its action as a tool call, and the page that it led to. In our records a step holds the page before the response.
"""

import dataclasses
from typing import Any

import msgspec

from mira_jax.errors import UserError
from mira_jax.interchange import atif_format as atif
from mira_jax.trajectories import actions
from mira_jax.trajectories.prompts import PromptConfig, prompt_hash, prompt_ids, rounds
from mira_jax.trajectories.records import Action, Evidence, Page, Policy, Step, Task, Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer

EXTRA = "mira_jax"
START = "The first page."
MILLION = 1e6
_STEP = ("page", "response", "reasoning", "action", "error", "token_ids", "log_probs", "tokens")
"""Fields of a step that are fields of ATIF."""
_VERSIONS = ("webrl", "compact", "instructed")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the records do not hold."""

    prompt_price: float | None = None
    """USD per million tokens. None: no costs are written."""
    response_price: float | None = None
    tokenizer: Tokenizer | None = None
    """Makes the token ids of the prompts. None: they are not written."""


@dataclasses.dataclass(frozen=True)
class Written:
    document: atif.Document
    images: dict[str, bytes]
    """Path, relative to the document, to content."""
    prompts_lost: int
    """Steps whose recorded prompt the tokenizer does not give."""


def write(trajectory: Trajectory, settings: Settings, name: str) -> Written:
    """`name`: the folder of the screenshots, relative to the document."""
    images: dict[str, bytes] = {}
    prompts = _prompts(trajectory, settings.tokenizer)
    steps = [atif.Step(step_id=1, source="user", message=trajectory.task.intent)]
    pages = [*(step.page for step in trajectory.steps), trajectory.evidence.page]
    if pages[0] is not None:
        start = atif.Observation(results=[_page(pages[0], None, f"{name}/0.jpg", images)])
        steps.append(atif.Step(step_id=2, source="system", message=START, observation=start))
    for number, (step, page) in enumerate(zip(trajectory.steps, pages[1:], strict=True), 1):
        call = _tool_call(step.action, number) if step.action else None
        call_id = call.tool_call_id if call else None
        results = [atif.Result(source_call_id=call_id, content=step.error, extra={"error": True})] if step.error is not None else []
        if page is not None:
            results.append(_page(page, call_id, f"{name}/{number}.jpg", images))
        rest = {**_changed(step, _STEP), "index": step.index}
        made = atif.Step(
            step_id=len(steps) + 1, source="agent", message=step.response, reasoning_content=step.reasoning or None,
            tool_calls=[call] if call else None, observation=atif.Observation(results=results) if results else None,
            metrics=_metrics(step, settings, prompts.get(number - 1)), extra={EXTRA: rest},
        )  # fmt: skip
        steps.append(made)
    lost = sum(bool(step.prompt_hash) for step in trajectory.steps) - len(prompts) if settings.tokenizer else 0
    return Written(_document(trajectory, steps), images, lost)


def _document(trajectory: Trajectory, steps: list[atif.Step]) -> atif.Document:
    policy, evidence = trajectory.policy, trajectory.evidence
    metrics = [step.metrics for step in steps if step.metrics]
    rest = {
        "id": trajectory.id,
        "format": trajectory.format,
        "task": _changed(trajectory.task, ("intent",)),
        "policy": _changed(policy, ()),
        "status": trajectory.status.value,
        **_changed(trajectory, ("id", "format", "task", "policy", "steps", "status", "evidence")),
    }
    if kept := _changed(evidence, ("page",)):
        rest["evidence"] = kept
    return atif.Document(
        session_id=trajectory.id,
        trajectory_id=trajectory.id,
        agent=atif.Agent(
            name=policy.name,
            version=policy.fingerprint or policy.checkpoint or "unknown",
            model_name=policy.checkpoint or None,
            tool_definitions=tool_definitions(),
        ),
        steps=steps,
        final_metrics=atif.FinalMetrics(
            total_prompt_tokens=_total(metrics, "prompt_tokens"),
            total_completion_tokens=_total(metrics, "completion_tokens"),
            total_cost_usd=_total(metrics, "cost_usd"),
            total_steps=len(steps),
            extra={"reward": trajectory.outcome.score} if trajectory.outcome else None,
        ),
        extra={EXTRA: rest},
    )


def tool_definitions() -> list[dict[str, Any]]:
    """The grammar of actions as functions, in OpenAI's schema."""
    required = {"do": ["action"], actions.EXIT: ["message"]}
    about = {
        "do": "acts on the page: " + "; ".join(f"{name} {form.about}" for name, form in actions.FORMS.items()),
        actions.EXIT: "ends the task, with the answer",
        "go_backward": "goes back to the previous page",
        "go_forward": "goes forward again",
    }
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": about[name],
                "parameters": {
                    "type": "object",
                    "properties": {parameter: {"type": "string"} for parameter in parameters},
                    "required": required.get(name, []),
                },
            },
        }
        for name, parameters in actions.PARAMETERS.items()
    ]


def _tool_call(action: Action, number: int) -> atif.ToolCall:
    name, arguments = call_of(action)
    return atif.ToolCall(tool_call_id=f"call-{number}", function_name=name, arguments=arguments)


def call_of(action: Action) -> tuple[str, dict[str, Any]]:
    """The function and the arguments of an action, as in its text form."""
    given = {key: value for key, value in (("argument", action.argument), ("element", action.element)) if value is not None}
    if action.name == actions.EXIT and action.element is None:
        return actions.EXIT, {"message": action.argument} if action.argument is not None else {}
    if not given and action.name in (actions.GO_BACKWARD, actions.GO_FORWARD):
        return action.name.lower().replace(" ", "_"), {}
    return "do", {"action": action.name, **given}


def _page(page: Page, call_id: str | None, image: str, images: dict[str, bytes]) -> atif.Result:
    content: str | list[atif.Part] = page.observation
    if page.screenshot is not None:
        images[image] = page.screenshot
        source = atif.Source(media_type="image/jpeg", path=image)
        content = [atif.Part(type="text", text=page.observation), atif.Part(type="image", source=source)]
    return atif.Result(source_call_id=call_id, content=content, extra={"url": page.url})


def _metrics(step: Step, settings: Settings, prompt: list[int] | None) -> atif.Metrics | None:
    tokens, cost = step.tokens, None
    if settings.prompt_price is not None and settings.response_price is not None and (tokens.prompt or tokens.response):
        cost = (tokens.prompt * settings.prompt_price + tokens.response * settings.response_price) / MILLION
    made = atif.Metrics(
        prompt_tokens=tokens.prompt or None,
        completion_tokens=tokens.response or None,
        cost_usd=cost,
        prompt_token_ids=prompt,
        completion_token_ids=_listed(step.token_ids),
        logprobs=_listed(step.log_probs),
    )
    return None if made == atif.Metrics() else made


def _prompts(trajectory: Trajectory, tokenizer: Tokenizer | None) -> dict[int, list[int]]:
    """Place of the step to the token ids of its prompt, for those that give the recorded hash."""
    policy, found = trajectory.policy, {}
    if tokenizer is None or policy.prompt_version not in _VERSIONS or policy.prompt_max_tokens < 1:
        return found
    config = PromptConfig(version=policy.prompt_version, max_tokens=policy.prompt_max_tokens)
    for place, step in enumerate(trajectory.steps):
        if not step.prompt_hash:
            continue
        try:
            past, page = rounds(trajectory.steps[:place]), step.page.observation
            ids = prompt_ids(trajectory.task.intent, past, page, config, tokenizer, step.plan)
        except UserError:
            continue  # with this tokenizer, the task is longer than the prompt
        if prompt_hash(ids) == step.prompt_hash:
            found[place] = ids
    return found


def _changed(record: Trajectory | Task | Policy | Step | Evidence, left_out: tuple[str, ...]) -> dict[str, Any]:
    """The fields that differ from their defaults, as plain data. Reading gives the others their defaults again."""
    made = {}
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        if field.name not in left_out and (field.required or value != field.default):
            made[field.name] = msgspec.to_builtins(value)
    return made


def _total(metrics: list[atif.Metrics], name: str) -> Any:
    known = [value for one in metrics if (value := getattr(one, name)) is not None]
    return sum(known) if known else None


def _listed(values: tuple[Any, ...] | None) -> list[Any] | None:
    return None if values is None else list(values)
