"""Reads the ATIF files of other agents, if they are web episodes: every action is one of our grammar's or of BrowserGym's."""

from mira_jax.errors import UserError
from mira_jax.interchange import atif_format as atif
from mira_jax.interchange import browsergym_actions, sources
from mira_jax.trajectories import actions
from mira_jax.trajectories.records import Action, Evidence, Page, Status, Step, TokenCounts, Trajectory


def read(document: atif.Document, settings: sources.Foreign, source: str) -> Trajectory:
    """The episode, without what ATIF does not hold: the outcome, URLs, the horizon. Token ids and log-probs are left out, because they
    belong to an unknown tokenizer and to the agent's own form of an action.

    Raises:
        UserError: it is no web episode, or only a part of one. The message names the file and the field.
    """
    _refuse_parts(document, source)
    intent = next((text for step in document.steps if step.source == "user" and (text := atif.text_of(step.message))), None)
    if not intent:
        raise UserError(f"{source}: steps: no message of the user, which would be the task")
    last = max((place for place, step in enumerate(document.steps) if step.source == "agent"), default=-1)
    page, steps, called = None, [], False
    for place, step in enumerate(document.steps):
        where = f"{source}: steps[{place}]"
        if step.source == "agent":
            if steps and _ends(steps[-1].action):
                raise UserError(f"{where}: the agent goes on after it ended the episode, in steps[{place - 1}] or before")
            if page is None:
                raise UserError(f"{where}: the agent acts, but no page was observed before; a web episode starts with a page")
            made, implied = _step(step, page, len(steps), where, place == last)
            called = called or (made.action is not None and not implied)
            steps.append(made)
        page = _observed(step) or page
    if not called:
        raise UserError(f"{source}: steps: no step has an action in a browser")
    return _trajectory(document, intent, steps, page if _observed_last(document, last) else None, settings)


def _trajectory(document: atif.Document, intent: str, steps: list[Step], end: Page | None, settings: sources.Foreign) -> Trajectory:
    last = steps[-1].action
    answer = last.argument if last is not None and _ends(last) else None
    created = next((step.timestamp for step in document.steps if step.timestamp), "")
    return Trajectory(
        id=document.trajectory_id or "",
        task=sources.foreign_task("atif", intent, len(steps), settings),
        policy=sources.foreign_policy(settings, document.agent.name, document.agent.model_name or ""),
        steps=tuple(steps),
        status=Status.HORIZON if answer is None else Status.FINISHED,
        evidence=Evidence(answer=answer, page=end),
        created=created,
    )


def _refuse_parts(document: atif.Document, source: str) -> None:
    if document.continued_trajectory_ref:
        raise UserError(f"{source}: continued_trajectory_ref: the episode goes on in another file")
    if document.subagent_trajectories:
        raise UserError(f"{source}: subagent_trajectories: an episode has one agent")
    for place, step in enumerate(document.steps):
        if step.is_copied_context:
            raise UserError(f"{source}: steps[{place}].is_copied_context: the step belongs to another file")
        for number, result in enumerate(step.observation.results if step.observation else ()):
            if result.subagent_trajectory_ref:
                raise UserError(f"{source}: steps[{place}].observation.results[{number}].subagent_trajectory_ref: an episode has one agent")


def _step(step: atif.Step, page: Page, index: int, where: str, last: bool) -> tuple[Step, bool]:
    """The record of one turn, and whether its action is only implied: a last message without a call is the answer."""
    message = atif.text_of(step.message)
    action, error, implied = _action(step, message, where), None, False
    if action is None and last and message:
        action, implied = Action(name=actions.EXIT, argument=message), True
    if action is None:
        error = "no action; expected one call"
    kept = action is None or _parsed(message) == action
    thoughts = (step.reasoning_content, None if kept or implied else message)
    metrics = step.metrics or atif.Metrics()
    return Step(
        index=index,
        page=page,
        response=message if kept or action is None else actions.format_action(action),
        reasoning="\n".join(text for text in thoughts if text),
        action=action,
        error=error,
        tokens=TokenCounts(prompt=metrics.prompt_tokens or 0, response=metrics.completion_tokens or 0),
    ), implied


def _action(step: atif.Step, message: str, where: str) -> Action | None:
    """The action of the tool call, or of the message if it is text of our grammar."""
    calls = step.tool_calls or []
    if not calls:
        return _parsed(message)
    if len(calls) > 1:
        raise UserError(f"{where}.tool_calls: {len(calls)} calls; a step of a web episode has one")
    call = calls[0]
    place = f"{where}.tool_calls[0]"
    if call.function_name in actions.PARAMETERS:
        return _own(call, place)
    if call.function_name not in (*browsergym_actions.PARAMETERS, *browsergym_actions.WITHOUT):
        raise UserError(f"{place}.function_name: {call.function_name[:60]!r} is no action in a browser, of our grammar or BrowserGym's")
    try:
        return browsergym_actions.convert(call.function_name, call.arguments)
    except (browsergym_actions.MalformedError, browsergym_actions.NoCounterpartError) as error:
        raise UserError(f"{place}: {error}") from None


def _own(call: atif.ToolCall, place: str) -> Action:
    """The action of a call in our grammar."""
    given = {key: str(value) if type(value) is int else value for key, value in call.arguments.items()}
    for key, value in given.items():
        if key not in actions.PARAMETERS[call.function_name] or not isinstance(value, str):
            raise UserError(f"{place}.arguments: {key[:60]!r} is no parameter of {call.function_name}, or its value is no text")
    text = ", ".join(f"{key}={actions.quote(value)}" for key, value in given.items())
    try:
        return actions.parse(f"{call.function_name}({text})")
    except actions.ParseError as error:
        raise UserError(f"{place}.arguments: {error}") from None


def _parsed(message: str) -> Action | None:
    try:
        return actions.parse(message)
    except actions.ParseError:
        return None


def _observed(step: atif.Step) -> Page | None:
    """The page in an observation, None if it has no text."""
    texts = [text for result in (step.observation.results if step.observation else ()) if (text := atif.text_of(result.content))]
    return Page(url="", observation="\n".join(texts)) if texts else None


def _observed_last(document: atif.Document, last: int) -> bool:
    return any(_observed(step) for step in document.steps[last:])


def _ends(action: Action | None) -> bool:
    return action is not None and action.name == actions.EXIT
