"""Builds the prompts of models that answer YES or NO about an episode, as tokens. Training, scoring and labelling use the same functions.

The model reads the instruction, the responses and the last page. An outcome reward model (ORM) answers whether the task was done, a
checker whether a subgoal is done. The idea is WebRL's (arXiv 2411.02337); the wording is this project's. As in
`mira_jax.trajectories.prompts`, pieces are encoded separately, the oldest responses are removed first, and then the page is cut.
"""

import msgspec

from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig, feedback, fit
from mira_jax.trajectories.records import Evidence, Page, Step, Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer

YES, NO = "YES", "NO"
QUESTION = (
    "You judge the work of a web agent. You are given an instruction, the actions that the agent took, and the last page that it saw. "
    f"Was the instruction carried out in full? Answer {YES} or {NO}.\n"
)
SUBGOAL_QUESTION = (
    "You check the work of a web agent. You are given an instruction, the actions that the agent took, the page that it saw after them, "
    f"and a subgoal of the instruction. Is the subgoal done? Answer {YES} or {NO}.\n"
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
    """The prompt of an ORM, with at most `config.max_tokens` tokens. The answer is the next token.

    `config.version`: webrl is one turn of Gemma's chat format with the question in words. compact has the same content without
    words around it, for small models.

    Raises:
        UserError: the instruction with its marks is longer than `config.max_tokens`.
        ValueError: the trajectory has no page.
    """
    return _prompt_ids(trajectory, config, tokenizer, QUESTION)


def subgoal_prompt_ids(trajectory: Trajectory, step: int, subgoal: str, config: PromptConfig, tokenizer: Tokenizer) -> list[int]:
    """The prompt of a checker: whether `subgoal` is done after the step with index `step`. Later steps are not in it.

    It is the prompt of an ORM for the episode up to this step, with the subgoal after the page, so that the prompts of all subgoals after
    one step have a common prefix. Arguments and errors as for `outcome_prompt_ids`.
    """
    steps = trajectory.steps
    page = steps[step + 1].page if step + 1 < len(steps) else last_page(trajectory)
    until = msgspec.structs.replace(trajectory, steps=steps[: step + 1], evidence=Evidence(page=page))
    return _prompt_ids(until, config, tokenizer, SUBGOAL_QUESTION, subgoal)


def _prompt_ids(trajectory: Trajectory, config: PromptConfig, tokenizer: Tokenizer, question: str, subgoal: str = "") -> list[int]:
    """`subgoal`: is put after the page, unless it is empty."""
    form = _compact if config.version == "compact" else _webrl
    head, history, tail_head, tail = form(trajectory, tokenizer, question, subgoal)
    page = last_page(trajectory).observation
    return fit(head, history, tail_head, page, tail, config, tokenizer, trajectory.task.intent)


_Parts = tuple[list[int], list[list[int]], list[int], list[int]]
"""The tokens before the history, of each response, before the page, and after the page."""


def _webrl(trajectory: Trajectory, tokenizer: Tokenizer, question: str, subgoal: str) -> _Parts:
    start, end, encode = tokenizer.start_of_turn_id, tokenizer.end_of_turn_id, tokenizer.encode
    intent = encode(f"user\n{question}Task Instruction: {trajectory.task.intent}\nAction History:\n")
    history = [encode(f"{number}. {_line(step)}\n{feedback(step.error)}") for number, step in enumerate(trajectory.steps)]
    asked = encode(f"\nSubgoal: {subgoal}") if subgoal else []
    tail = [*asked, end, *encode("\n"), start, *encode("model\n")]
    return [tokenizer.bos_id, start, *intent], history, encode("Last Page:\n"), tail


def _compact(trajectory: Trajectory, tokenizer: Tokenizer, question: str, subgoal: str) -> _Parts:
    encode = tokenizer.encode
    history = [[*encode(_line(step)), *encode("\n"), *encode(feedback(step.error))] for step in trajectory.steps]
    head = [tokenizer.bos_id, *encode(trajectory.task.intent), *encode("\n")]
    asked = encode(f"\n{subgoal}") if subgoal else []
    return head, history, [tokenizer.start_of_turn_id], [*asked, tokenizer.end_of_turn_id]


def _line(step: Step) -> str:
    """The response in one line, its lines joined by semicolons."""
    return "; ".join(line.strip() for line in step.response.splitlines() if line.strip())
