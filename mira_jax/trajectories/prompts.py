"""Builds the prompt of one step as tokens. Rollouts and training use the same function.

The format is that of WebRL (arXiv 2411.02337), with Gemma's turn marks: the task, each past response without its page, then
the current page in full. Pieces are encoded separately, so that everything before the page has the same tokens at every step.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mira_jax.config import Count
from mira_jax.errors import ConfigError, UserError
from mira_jax.trajectories.instructions import INSTRUCTIONS
from mira_jax.trajectories.records import Plan, Step
from mira_jax.trajectories.tokenizer import Tokenizer

OLD_PAGE = "** Simplified html **"
PAGE_CUT = "\n[page cut]"
HISTORY_CUT = "[earlier rounds left out]\n"
PLAN = "Subgoals (x: done, >: current):\n"
"""The line above a plan."""
STALLED = "No progress for some steps: write other subgoals.\n"


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    version: Literal["webrl", "compact", "instructed"] = "webrl"
    """webrl: one chat turn per round, as in WebRL's data. compact: the same content with few marks, for small models. instructed: Gemma's
    own chat format, with instructions that explain pages and actions, for models that were not trained on them."""
    max_tokens: Count = 16_384
    """Maximum number of tokens in a prompt. Older rounds are removed first, then the page is cut."""
    subgoals: bool = False
    """For critics: the subgoals are listed before the page, with a mark for each that is done, as the labels say, in place of the
    planner's plan. A policy does not know this in a rollout, so no policy may have such prompts."""


@dataclasses.dataclass(frozen=True)
class Round:
    """A past turn."""

    response: str
    error: str | None = None
    """The error of the response, as shown to the policy."""


def rounds(steps: Sequence[Step]) -> list[Round]:
    return [Round(step.response, step.error) for step in steps]


def prompt_hash(ids: Sequence[int]) -> str:
    """32 hexadecimal digits: the truncated SHA-256 of the ids as little-endian int32."""
    return hashlib.sha256(np.asarray(ids, "<i4").tobytes()).hexdigest()[:32]


def token_problem(ids: Sequence[int], text: str, tokenizer: Tokenizer) -> str:
    """Why `ids` are not the tokens of `text`, or "" if they are."""
    if not all(0 <= token < tokenizer.vocabulary_size for token in ids):
        return f"are not all in the vocabulary of {tokenizer.vocabulary_size}"
    decoded = tokenizer.decode(ids)
    if decoded == text:
        return ""
    # Engines differ in how they replace invalid UTF-8, such as an incomplete character at the end of a cut response. Some
    # also replace valid characters next to it.
    if "\ufffd" in decoded and "\ufffd" in text and _in_order(text.split("\ufffd"), decoded):
        return ""
    return f"decode to {decoded[:60]!r}, but its text is {text[:60]!r}"


def _in_order(parts: Sequence[str], text: str) -> bool:
    """Whether `text` consists of the two or more `parts` in order, with anything between them."""
    first, *middle, last = parts
    if not text.startswith(first):
        return False
    position = len(first)
    for part in middle:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return text.endswith(last) and position + len(last) <= len(text)


def response_ids(response: str, tokenizer: Tokenizer, cut: bool = False) -> list[int]:
    """The tokens that the loss is computed on: the response and its end token. A response that was `cut` has no end token."""
    tokens = tokenizer.encode(response)
    return tokens if cut and tokens else [*tokens, tokenizer.end_of_turn_id]


def prompt_ids(
    intent: str, past: Sequence[Round], page: str, config: PromptConfig, tokenizer: Tokenizer, plan: Plan | None = None
) -> list[int]:
    """The prompt of the step after `past`, with at most `config.max_tokens` tokens. `plan` is shown before the page.

    Raises:
        UserError: the task with its marks is longer than `config.max_tokens`.
    """
    form = _FORMS[config.version]
    page = plan_text(plan, config.version) + page
    head, tail_head, tail = form.frame(intent, len(past), tokenizer)
    history = [form.round(index, turn, tokenizer) for index, turn in enumerate(past)]
    return fit(head, history, tail_head, page, tail, config, tokenizer, intent)


def chat_messages(
    intent: str, past: Sequence[Round], page: str, max_characters: int, plan: Plan | None = None, instructions: str = INSTRUCTIONS
) -> list[dict[str, str]]:
    """The prompt of the step after `past` as messages with role and content, for models behind a chat API: the instructions as the
    system's message, then turns of user and assistant in alternation, which chat templates demand. With Gemma's chat template, the text is
    that of `PromptConfig.version` "instructed".

    Args:
        max_characters: of all messages. The oldest rounds are left out first, then the page is cut.
        plan: shown before the page.
        instructions: the system's message.

    Raises:
        UserError: the instructions and the task are longer than `max_characters`.
    """
    page = plan_text(plan, "instructed") + page
    opening = f"Task: {intent}\n\n"
    room = max_characters - len(instructions) - len(opening) - len(HISTORY_CUT) - len(PAGE_CUT) - 32
    if room <= 0:
        raise ConfigError(
            "policy.chat.max_characters", f"{max_characters} leaves no room for a page after instructions and the task {intent[:60]!r}"
        )
    sizes = [len(turn.response) + len(feedback(turn.error)) + len(OLD_PAGE) + 32 for turn in past]
    first = next((first for first in range(len(past)) if sum(sizes[first:]) + len(page) <= room), len(past))
    if len(page) > room - sum(sizes[first:]):
        page = page[: room - sum(sizes[first:])] + PAGE_CUT
    messages = [{"role": "system", "content": instructions}]
    user = opening + (HISTORY_CUT if first else "")
    for index, turn in enumerate(past[first:], first):
        messages.append({"role": "user", "content": f"{user}Round {index}\n{OLD_PAGE}"})
        messages.append({"role": "assistant", "content": turn.response})
        user = feedback(turn.error)
    return [*messages, {"role": "user", "content": f"{user}Round {len(past)}\n{page}"}]


def refuse_subgoals(config: PromptConfig, key: str) -> None:
    """Raises ConfigError if prompts that no critic reads would show which subgoals are done. `key`: the key of `config`."""
    if config.subgoals:
        raise ConfigError(f"{key}.subgoals", "only critics may see which subgoals are done; leave it out")


def plan_text(plan: Plan | None, version: str) -> str:
    """The lines that show a plan to a policy, "" without subgoals: the checklist, and which subgoal is the current one.

    In compact prompts the current subgoal is a line of its own, so that a small model can copy from it.
    """
    if plan is None or not plan.subgoals:
        return ""
    lines = checklist(plan.subgoals, plan.done, version, plan.current)
    if version == "compact":
        return lines + (f"now: {plan.subgoals[plan.current]}\n" if plan.current is not None else "")
    return PLAN + lines + (STALLED if plan.stalled else "")


def checklist(subgoals: Sequence[str], done: Sequence[bool], version: str, current: int | None = None) -> str:
    """The lines that show which subgoals are done: one line each, or, in compact prompts, the numbers of those that are done."""
    if version == "compact":
        numbers = " ".join(str(number) for number, one in enumerate(done, 1) if one)
        return f"done: {numbers or 'none'} of {len(done)}\n"
    marks = ["x" if one else ">" if place == current else " " for place, one in enumerate(done)]
    return "".join(f"[{mark}] {text}\n" for mark, text in zip(marks, subgoals, strict=True))


def fit(
    head: list[int],
    history: Sequence[list[int]],
    tail_head: list[int],
    page: str,
    tail: list[int],
    config: PromptConfig,
    tokenizer: Tokenizer,
    intent: str,
) -> list[int]:
    """Joins the parts in at most `config.max_tokens` tokens: removes the oldest parts of the history first, then cuts the page.

    Args:
        head: the tokens before the history.
        history: the tokens of each part of the history, oldest first.
        tail_head: the tokens before the page.
        tail: the tokens after the page.
        intent: the instruction, for the message.

    Raises:
        UserError: the parts without history and page are longer than `config.max_tokens`.
    """
    page_tokens = tokenizer.encode(page)
    notice, cut = tokenizer.encode(HISTORY_CUT), tokenizer.encode(PAGE_CUT)
    room = config.max_tokens - len(head) - len(tail_head) - len(tail)
    if room <= len(notice) + len(cut):
        raise UserError(f"prompt.max_tokens: {config.max_tokens} leaves no room for a page after the task {intent[:60]!r}")

    lengths = [len(part) for part in history]
    dropped = 0
    while dropped < len(history) and sum(lengths[dropped:]) + bool(dropped) * len(notice) + len(page_tokens) > room:
        dropped += 1
    past_tokens = [*(notice if dropped else []), *itertools.chain.from_iterable(history[dropped:])]
    room -= len(past_tokens)
    if len(page_tokens) > room:
        page_tokens = page_tokens[: room - len(cut)] + cut
    return [*head, *past_tokens, *tail_head, *page_tokens, *tail]


def feedback(error: str | None) -> str:
    """The line that shows a response's error to the model, "" without one."""
    return f"Error: {error}\n" if error else ""


class _WebRL:
    """One chat turn of the user and one of the model per round."""

    @staticmethod
    def frame(intent: str, count: int, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
        """The tokens before the history, before the page, and after the page."""
        start, end = [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id, *tokenizer.encode("\n")]
        head = [tokenizer.bos_id, *start, *tokenizer.encode(f"user\nTask Instruction: {intent}"), *end]
        return head, [*start, *tokenizer.encode(f"user\nRound {count}\n")], [*end, *start, *tokenizer.encode("model\n")]

    @staticmethod
    def round(index: int, turn: Round, tokenizer: Tokenizer) -> list[int]:
        start, end = [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id, *tokenizer.encode("\n")]
        page = [*start, *tokenizer.encode(f"user\nRound {index}\n{OLD_PAGE}"), *end]
        response = [*start, *tokenizer.encode("model\n"), *tokenizer.encode(turn.response), *end]
        return [*page, *response, *tokenizer.encode(feedback(turn.error))]


class _Compact:
    """The task, one line per response, then one turn with the page."""

    @staticmethod
    def frame(intent: str, count: int, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
        head = [tokenizer.bos_id, *tokenizer.encode(intent), *tokenizer.encode("\n")]
        return head, [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id]

    @staticmethod
    def round(index: int, turn: Round, tokenizer: Tokenizer) -> list[int]:
        return [*tokenizer.encode(turn.response), *tokenizer.encode("\n"), *tokenizer.encode(feedback(turn.error))]


class _Instructed:
    """Gemma's chat format: turns of user and model in alternation, the first one with the instructions."""

    @staticmethod
    def frame(intent: str, count: int, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
        start, end = [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id, *tokenizer.encode("\n")]
        head = [tokenizer.bos_id, *start, *tokenizer.encode(f"user\n{INSTRUCTIONS}\n\nTask: {intent}\n\n")]
        return head, tokenizer.encode(f"Round {count}\n"), [*end, *start, *tokenizer.encode("model\n")]

    @staticmethod
    def round(index: int, turn: Round, tokenizer: Tokenizer) -> list[int]:
        start, end = [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id, *tokenizer.encode("\n")]
        page = [*tokenizer.encode(f"Round {index}\n{OLD_PAGE}"), *end]
        response = [*start, *tokenizer.encode("model\n"), *tokenizer.encode(turn.response), *end]
        return [*page, *response, *start, *tokenizer.encode("user\n"), *tokenizer.encode(feedback(turn.error))]


_FORMS = {"webrl": _WebRL, "compact": _Compact, "instructed": _Instructed}
