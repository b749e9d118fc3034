"""What a policy reads at one step, as tokens: one function for rollouts and for training.

The form is WebRL's (arXiv 2411.02337): the task, each past response with its page left out, then the
current page in full, with Gemma's turn marks. Pieces are encoded one by one, so that what precedes a page
has the same tokens at every step.
"""

import dataclasses
from collections.abc import Sequence

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Step
from mira_jax.trajectories.tokenizer import Tokenizer

OLD_PAGE = "** Simplified html **"
PAGE_CUT = "\n[page cut]"
HISTORY_CUT = "[earlier rounds left out]\n"
VERSIONS = ("webrl", "compact")


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    version: str = "webrl"
    """webrl: one chat turn per round, as in WebRL's data. compact: the same content with few marks, for small models."""
    max_tokens: int = 16_384
    """The most tokens of a prompt. Older rounds are left out first, then the page is cut."""

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise UserError(f"prompt.version: {self.version!r} is none of {', '.join(VERSIONS)}")


@dataclasses.dataclass(frozen=True)
class Round:
    """One past turn."""

    response: str
    error: str | None = None
    """What was wrong with the response, shown to the policy."""


def rounds(steps: Sequence[Step]) -> list[Round]:
    return [Round(step.response, step.error) for step in steps]


def response_ids(response: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens that carry loss: the response and its end token."""
    return [*tokenizer.encode(response), tokenizer.end_of_turn_id]


def prompt_ids(intent: str, past: Sequence[Round], page: str, config: PromptConfig, tokenizer: Tokenizer) -> list[int]:
    """The prompt of the step after `past`, at most `config.max_tokens` tokens.

    Raises:
        UserError: the task and its marks alone are longer than `config.max_tokens`.
    """
    form = _Compact if config.version == "compact" else _WebRL
    head, middle, page_head, page_tail = form.frame(intent, len(past), tokenizer)
    history = [form.round(index, turn, tokenizer) for index, turn in enumerate(past)]
    page_tokens = tokenizer.encode(page)
    room = config.max_tokens - len(head) - len(middle) - len(page_head) - len(page_tail)
    if room < 1:
        raise UserError(f"prompt.max_tokens: {config.max_tokens} leaves no room for a page after the task {intent[:60]!r}")

    kept = len(history)
    used = sum(map(len, history))
    notice = tokenizer.encode(HISTORY_CUT)
    while kept and used + len(page_tokens) > room:
        used -= len(history[len(history) - kept])
        kept -= 1
        if kept == len(history) - 1:
            used += len(notice)
    if kept < len(history) and used > room // 2:
        used, notice = 0, []
    past_tokens = [] if kept == len(history) else list(notice)
    for turn in history[len(history) - kept :]:
        past_tokens += turn
    if len(past_tokens) + len(page_tokens) > room:
        cut = tokenizer.encode(PAGE_CUT)
        page_tokens = (page_tokens[: max(0, room - len(past_tokens) - len(cut))] + cut)[: room - len(past_tokens)]
    return [*head, *past_tokens, *middle, *page_head, *page_tokens, *page_tail]


def _feedback(error: str | None) -> str:
    return f"Error: {error}\n" if error else ""


class _WebRL:
    """`<start_of_turn>user ... <end_of_turn>` and `<start_of_turn>model ... <end_of_turn>`, a round each."""

    @staticmethod
    def frame(intent: str, count: int, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int], list[int]]:
        start, end = [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id]
        head = [tokenizer.bos_id, *start, *tokenizer.encode(f"user\nTask Instruction: {intent}"), *end, *tokenizer.encode("\n")]
        page_head = [*start, *tokenizer.encode(f"user\nRound {count}\n")]
        page_tail = [*end, *tokenizer.encode("\n"), *start, *tokenizer.encode("model\n")]
        return head, [], page_head, page_tail

    @staticmethod
    def round(index: int, turn: Round, tokenizer: Tokenizer) -> list[int]:
        start, end = [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id]
        return [
            *start, *tokenizer.encode(f"user\nRound {index}\n{OLD_PAGE}"), *end, *tokenizer.encode("\n"),
            *start, *tokenizer.encode("model\n"), *tokenizer.encode(turn.response), *end, *tokenizer.encode("\n" + _feedback(turn.error)),
        ]  # fmt: skip


class _Compact:
    """The task, the responses a line each, then one turn with the page."""

    @staticmethod
    def frame(intent: str, count: int, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int], list[int]]:
        head = [tokenizer.bos_id, *tokenizer.encode(intent), *tokenizer.encode("\n")]
        return head, [tokenizer.start_of_turn_id], [], [tokenizer.end_of_turn_id]

    @staticmethod
    def round(index: int, turn: Round, tokenizer: Tokenizer) -> list[int]:
        return tokenizer.encode(turn.response) + tokenizer.encode("\n" + _feedback(turn.error))
