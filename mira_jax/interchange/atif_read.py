"""Reads ATIF files. Those of `atif_write` give the equal record; those of other agents are read by `atif_foreign`."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mira_jax.errors import UserError
from mira_jax.interchange import atif_foreign, sources
from mira_jax.interchange import atif_format as atif
from mira_jax.interchange.atif_write import EXTRA
from mira_jax.trajectories import actions
from mira_jax.trajectories.records import FORMAT, Action, Page, Step, Trajectory


def files(path: Path) -> list[Path]:
    return sources.list_files(path, ".json", "ATIF files")


def episodes(path: Path, settings: sources.Foreign, attempts: sources.Attempts) -> Iterator[tuple[str, sources.Found]]:
    """The one episode of a file."""
    source = str(path)
    try:
        document = sources.parse(sources.read_bytes(path), atif.Document, source)
        if _is_own(document):
            yield source, read_own(document, path.parent, source)
        else:
            yield source, attempts.complete(atif_foreign.read(document, settings, source), source)
    except UserError as error:
        yield source, error


def read_own(document: atif.Document, folder: Path, source: str) -> Trajectory:
    """The record of a file that `atif_write` wrote. `folder`: where its images are.

    Raises:
        UserError: the file was changed so that it is no record any more.
    """
    rest = (document.extra or {})[EXTRA]
    if not isinstance(rest.get("format"), int) or rest["format"] > FORMAT:
        raise UserError(f"{source}: extra.{EXTRA}.format: {rest.get('format')!r} is none of 1 to {FORMAT}; update mira_jax")
    first, *others = document.steps
    if first.source != "user" or not isinstance(first.message, str):
        raise UserError(f"{source}: steps[0]: expected the task, a text of the source user")
    pages: list[Page | None] = [None]
    if others and others[0].source == "system":
        pages = [_observed(others.pop(0), 1, folder, source)[0]]
    steps = []
    for place, step in enumerate(others, len(document.steps) - len(others)):
        page, error = _observed(step, place, folder, source)
        steps.append(_step(step, place, pages[-1], error, source))
        pages.append(page)
    task = rest.get("task")
    plain = {**rest, "task": {**task, "intent": first.message} if isinstance(task, dict) else task, "steps": []}
    made = sources.convert(plain, Trajectory, source, f"extra.{EXTRA}")
    evidence = msgspec.structs.replace(made.evidence, page=pages[-1])
    return sources.storable(msgspec.structs.replace(made, steps=tuple(steps), evidence=evidence), source)


def _is_own(document: atif.Document) -> bool:
    return isinstance((document.extra or {}).get(EXTRA), dict)


def _step(step: atif.Step, place: int, page: Page | None, error: str | None, source: str) -> Step:
    where = f"steps[{place}]"
    if step.source != "agent" or not isinstance(step.message, str):
        raise UserError(f"{source}: {where}: expected a response, a text of the source agent")
    if page is None:
        raise UserError(f"{source}: {where}: no page before this response; restore the observation of the step before it")
    metrics = step.metrics or atif.Metrics()
    plain = {
        **((step.extra or {}).get(EXTRA) or {}),
        "page": msgspec.to_builtins(msgspec.structs.replace(page, screenshot=None)),
        "response": step.message,
        "reasoning": step.reasoning_content or "",
        "action": msgspec.to_builtins(_action(step, where, source)),
        "error": error,
        "token_ids": metrics.completion_token_ids,
        "log_probs": metrics.logprobs,
        "tokens": {"prompt": metrics.prompt_tokens or 0, "response": metrics.completion_tokens or 0},
    }
    return msgspec.structs.replace(sources.convert(plain, Step, source, f"{where}.extra.{EXTRA}"), page=page)


def _action(step: atif.Step, where: str, source: str) -> Action | None:
    if not step.tool_calls:
        return None
    call = step.tool_calls[0]
    given = call.arguments
    sound = call.function_name in actions.PARAMETERS and all(isinstance(value, str) for value in given.values())
    if len(step.tool_calls) > 1 or not sound:
        raise UserError(f"{source}: {where}.tool_calls: expected one call of {', '.join(actions.PARAMETERS)}, with texts as arguments")
    if call.function_name == actions.EXIT:
        return Action(name=actions.EXIT, argument=given.get("message"))
    name = given.get("action") if call.function_name == "do" else call.function_name.replace("_", " ").title()
    if name is None:
        raise UserError(f"{source}: {where}.tool_calls[0].arguments: do needs an action")
    return Action(name=name, argument=given.get("argument"), element=given.get("element"))


def _observed(step: atif.Step, place: int, folder: Path, source: str) -> tuple[Page | None, str | None]:
    """The page and the error that an observation holds."""
    page, error = None, None
    for number, result in enumerate(step.observation.results if step.observation else ()):
        where, extra = f"steps[{place}].observation.results[{number}]", result.extra or {}
        if extra.get("error") is True and isinstance(result.content, str):
            error = result.content
        elif isinstance(extra.get("url"), str):
            page = Page(url=extra["url"], observation=atif.text_of(result.content), screenshot=_image(result, where, folder, source))
        else:
            raise UserError(f"{source}: {where}.extra: expected the url of a page, or the mark of an error")
    return page, error


def _image(result: atif.Result, where: str, folder: Path, source: str) -> bytes | None:
    """The screenshot, from a file inside `folder`."""
    parts = result.content if isinstance(result.content, list) else []
    for number, part in enumerate(parts):
        if part.type == "image":
            path = part.source.path if part.source else ""
            found = (folder / path).resolve()
            if not path or folder.resolve() not in found.parents:
                raise UserError(f"{source}: {where}.content[{number}].source.path: {path!r} is not inside of the file's folder")
            return sources.read_bytes(found)
    return None
