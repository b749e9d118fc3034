"""A policy behind a chat API: any model that follows instructions, without training on the grammar of actions."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mira_jax.errors import ConfigError
from mira_jax.trajectories import records
from mira_jax.trajectories.actions import PARAMETERS, ParseError, parse
from mira_jax.trajectories.instructions import INSTRUCTIONS
from mira_jax.trajectories.prompts import Round, chat_messages
from mira_jax.trajectories.records import Plan, Task, TokenCounts, episode_key
from rollouts.agents.base import Agent, PolicyConfig, Reply, step_seed
from rollouts.agents.joint_planner import joint_instructions, read_checklist
from rollouts.llm.endpoint import Endpoint
from rollouts.llm.images import image_part
from rollouts.web.observation import Observation

PROMPT_VERSION = "chat"
MAX_TRIES = 50
"""Closing parentheses after the beginning of a call that are tried as its end."""
_THOUGHTS = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_MARKS = " \t\n>*`-"
"""Markdown's marks around a call."""
_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)
_CALL = re.compile(rf"^[ \t>*`-]*((?:{'|'.join(PARAMETERS)})[ \t]*\()", re.MULTILINE)


class ChatPolicy:
    """Each step is one conversation: instructions, past responses, the page. See `prompts.chat_messages`."""

    def __init__(self, config: PolicyConfig, subgoals: int = 0):
        """`subgoals`: number of subgoals of a policy that writes its own checklist. 0: it writes none."""
        self.config = config
        self.plans = bool(subgoals)
        self.instructions = joint_instructions(subgoals) if subgoals else INSTRUCTIONS
        self.endpoint = Endpoint(config.endpoint, "policy.endpoint")
        self.record = self._record()

    async def __aenter__(self) -> "ChatPolicy":
        """Raises UserError if the endpoint can't be reached."""
        await self.endpoint.__aenter__()
        self.record = self._record()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.endpoint.__aexit__()

    def agent(self, task: Task, attempt: int) -> Agent:
        return _ChatAgent(self, task, episode_key(task, attempt, self.record))

    def _record(self) -> records.Policy:
        model = self.endpoint.model
        return records.Policy(
            name=self.config.name or model or "chat",
            checkpoint=self.config.checkpoint or model,
            fingerprint=self.endpoint.card.fingerprint,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            prompt_version=PROMPT_VERSION,
            seed=self.config.seed,
        )


class _ChatAgent:
    def __init__(self, policy: ChatPolicy, task: Task, key: str):
        self.policy, self.task, self.key = policy, task, key

    async def respond(self, past: Sequence[Round], observation: Observation, plan: Plan | None = None) -> Reply:
        config = self.policy.config
        most, instructions = config.chat.max_characters, self.policy.instructions
        messages: list[dict[str, Any]] = list(chat_messages(self.task.intent, past, observation.text, most, plan, instructions))
        if config.chat.images:
            if observation.screenshot is None:
                raise ConfigError("policy.chat.images", "there is no screenshot of the page; set browser.screenshots=true")
            messages[-1] = _with_image(messages[-1], observation.screenshot)
        found = await self.policy.endpoint.chat(
            messages,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=step_seed(self.key, len(past)),
        )
        reasoning, response = split_answer(found.text)
        tokens = TokenCounts(prompt=found.prompt_tokens, response=found.tokens)
        cut = found.cut and found.text.rstrip().endswith(response)
        reasoning = _joined((found.reasoning.strip(), reasoning))
        return Reply(response, tokens=tokens, cut=cut, reasoning=reasoning, checklist=_checklist(found.text) if self.policy.plans else "")


def split_answer(text: str) -> tuple[str, str]:
    """(thoughts, response) of a chat model's answer. The response is the last call in it, with any calls directly before it, which the
    parser then refuses; what surrounds it is thought. Without a call, the response is the answer without what is in <think> marks."""
    thoughts, rest = _thoughts(text)
    found = _find_response(rest)
    if found is None:
        return _joined(thoughts), rest
    start, end = found
    around = (_FENCE.sub("", part).strip(_MARKS) for part in (rest[:start], rest[end:]))
    return _joined([*thoughts, *around]), rest[start:end].strip()


def _checklist(text: str) -> Plan | str:
    """The checklist directly before the response, or why there is none. Thoughts are no part of it."""
    _, rest = _thoughts(text)
    found = _find_response(rest)
    try:
        return read_checklist(rest[: found[0]] if found else rest)
    except ValueError as error:
        return str(error)


def _thoughts(text: str) -> tuple[list[str], str]:
    """What is in <think> marks, and the rest."""
    if "<think>" not in text.partition("</think>")[0] and "</think>" in text:
        text = "<think>" + text  # chat templates that open the thoughts themselves
    return [match.strip() for match in _THOUGHTS.findall(text)], _THOUGHTS.sub("", text).strip()


def _find_response(rest: str) -> tuple[int, int] | None:
    """Start and end of the last call, with any calls directly before it."""
    starts = [match.start(1) for match in _CALL.finditer(rest)]
    if not starts:
        return None
    ends = [start + _call_length(rest[start:]) for start in starts]
    first = len(starts) - 1
    while first and not rest[ends[first - 1] : starts[first]].strip(_MARKS):
        first -= 1
    return starts[first], ends[-1]


def _call_length(text: str) -> int:
    """The length of the call that `text` begins with; of its first line if that can't be read."""
    end = text.find(")")
    for _ in range(MAX_TRIES):
        if end < 0:
            break
        try:
            parse(text[: end + 1])
        except ParseError:
            end = text.find(")", end + 1)
            continue
        return end + 1
    return len(text.partition("\n")[0])


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(filter(None, texts))


def _with_image(message: dict[str, Any], screenshot: bytes) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}, image_part(screenshot)]}
