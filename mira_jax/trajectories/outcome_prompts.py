"""Builds the prompt of an outcome reward model (ORM) as tokens. Training, scoring and judging use the same function.

The model reads the instruction, the responses and the last page of an episode, and answers YES or NO: whether the task was
done. The idea is WebRL's (arXiv 2411.02337); the wording is this project's. As in `mira_jax.trajectories.prompts`, pieces are
encoded separately, the oldest responses are removed first, and then the page is cut.
"""

from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig, feedback, fit
from mira_jax.trajectories.records import Page, Step, Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer

YES, NO = "YES", "NO"
QUESTION = (
    "You judge the work of a web agent. You are given an instruction, the actions that the agent took, and the last page that it saw. "
    f"Was the instruction carried out in full? Answer {YES} or {NO}.\n"
)


def answer_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """The first token of YES and the first token of NO, which are compared. In Gemma's vocabulary they are the whole words.

    Raises:
        UserError: both answers begin with the same token.
    """
    yes, no = tokenizer.encode(YES)[0], tokenizer.encode(NO)[0]
    if yes == no:
        raise UserError(f"{tokenizer.path}: {YES} and {NO} begin with the same token {tokenizer.piece(yes)!r}; use another tokenizer")
    return yes, no


def last_page(trajectory: Trajectory) -> Page:
    """The page at the end of the episode: the recorded evidence, or, if there is none, the page before the last response.

    Raises:
        ValueError: the trajectory has neither.
    """
    page = trajectory.evidence.page or (trajectory.steps[-1].page if trajectory.steps else None)
    if page is None:
        raise ValueError(f"trajectory {trajectory.id}: no page")
    return page


def outcome_prompt_ids(trajectory: Trajectory, config: PromptConfig, tokenizer: Tokenizer) -> list[int]:
    """The prompt, with at most `config.max_tokens` tokens. The answer is the next token.

    `config.version`: webrl is one turn of Gemma's chat format with the question in words. compact has the same content without
    words around it, for small models.

    Raises:
        UserError: the instruction with its marks is longer than `config.max_tokens`.
        ValueError: the trajectory has no page.
    """
    form = _compact if config.version == "compact" else _webrl
    head, history, tail_head, tail = form(trajectory, tokenizer)
    page = last_page(trajectory).observation
    return fit(head, history, tail_head, page, tail, config, tokenizer, trajectory.task.intent)


_Parts = tuple[list[int], list[list[int]], list[int], list[int]]
"""The tokens before the history, of each response, before the page, and after the page."""


def _webrl(trajectory: Trajectory, tokenizer: Tokenizer) -> _Parts:
    start, end, encode = tokenizer.start_of_turn_id, tokenizer.end_of_turn_id, tokenizer.encode
    intent = encode(f"user\n{QUESTION}Task Instruction: {trajectory.task.intent}\nAction History:\n")
    history = [encode(f"{number}. {_line(step)}\n{feedback(step.error)}") for number, step in enumerate(trajectory.steps)]
    return [tokenizer.bos_id, start, *intent], history, encode("Last Page:\n"), [end, *encode("\n"), start, *encode("model\n")]


def _compact(trajectory: Trajectory, tokenizer: Tokenizer) -> _Parts:
    encode = tokenizer.encode
    history = [[*encode(_line(step)), *encode("\n"), *encode(feedback(step.error))] for step in trajectory.steps]
    head = [tokenizer.bos_id, *encode(trajectory.task.intent), *encode("\n")]
    return head, history, [tokenizer.start_of_turn_id], [tokenizer.end_of_turn_id]


def _line(step: Step) -> str:
    """The response in one line, its lines joined by semicolons."""
    return "; ".join(line.strip() for line in step.response.splitlines() if line.strip())
