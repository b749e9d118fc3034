"""The trajectory record: what a rollout writes and training reads. One record is one episode."""

import enum
from typing import Any

import msgspec

from mira_jax.errors import UserError

FORMAT = 2
"""Of the records written here. 2 adds what was drawn and how: token ids, their log-probabilities, the sampling settings,
hashes of prompt, tokenizer and weights. Records of format 1 are read; what they lack has its default."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent was asked to do, and where."""

    id: str
    """Unique within the suite, for example `shop.buy_with_coupon.test.17`."""
    suite: str
    sites: tuple[str, ...]
    template: str
    split: str
    """train, validation or test."""
    seed: int
    """Draws the content of the sites."""
    intent: str
    start_url: str
    """With the site's placeholder in place of its address, for example `__SHOP__/`."""
    horizon: int
    """The most steps an episode may have."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What produced the responses."""

    name: str
    checkpoint: str = ""
    fingerprint: str = ""
    """Of the weights, as the endpoint reports it; empty for scripts, and where the endpoint does not."""
    temperature: float = 0.0
    top_p: float = 1.0
    """1: off."""
    top_k: int = 0
    """0: off."""
    prompt_version: str = ""
    prompt_max_tokens: int = 0
    tokenizer: str = ""
    """SHA-256 of the tokenizer's file."""
    seed: int = 0


class Subgoal(msgspec.Struct, frozen=True, kw_only=True):
    """One milestone of the task, and how it is checked."""

    text: str
    check: str


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed response, by the grammar in `rollouts.web.actions`."""

    name: str
    argument: str | None = None
    element: str | None = None


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    prompt: int = 0
    response: int = 0


class Seconds(msgspec.Struct, frozen=True, kw_only=True):
    """Wall-clock seconds one step spent in each part."""

    browser: float = 0.0
    policy: float = 0.0
    judge: float = 0.0


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page as the agent saw it."""

    url: str
    """With the site's placeholder in place of its address."""
    observation: str
    """The page's text, by `rollouts.web.observation`."""
    screenshot: bytes | None = None
    """JPEG."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One turn: the page before it, the response, and what the site's state was after it."""

    index: int
    page: Page
    response: str
    """The policy's whole text, without its end token."""
    cut: bool = False
    """The response was cut at the most tokens it may have: it has no end token."""
    action: Action | None = None
    error: str | None = None
    """Why the response could not be parsed, or the action not be done. The policy is told."""
    state: dict[str, Any] | None = None
    """What the suite reads of the site's state after this step: the material of milestone checks. Never shown to the policy."""
    milestones: tuple[bool, ...] = ()
    """z_t: whether each subgoal is done after this step. Empty until labelled."""
    prompt_hash: str = ""
    """Of the prompt's token ids, by `prompts.prompt_hash`. Empty for scripts and in format 1."""
    token_ids: tuple[int, ...] | None = None
    """The response's tokens as they were drawn, end token included unless `cut`. None for scripts, in format 1, and for
    endpoints that do not return them: such a response is tokenised from its text."""
    log_probs: tuple[float, ...] | None = None
    """Of each of `token_ids` under the model itself: temperature 1, the whole vocabulary. In nats. None where unknown."""
    sampling_log_probs: tuple[float, ...] | None = None
    """Of each of `token_ids` under the distribution it was drawn from, by the policy's temperature, top_p and top_k. In nats.
    None where unknown."""
    log_prob: float | None = None
    """Sum of the log-probabilities that the endpoint reported for the response's tokens, in nats."""
    tokens: TokenCounts = TokenCounts()
    seconds: Seconds = Seconds()


class Status(str, enum.Enum):
    """How an episode ended."""

    FINISHED = "finished"
    """The policy said exit()."""
    HORIZON = "horizon"
    STUCK = "stuck"
    PARSE_FAILURES = "parse_failures"
    INFRA_ERROR = "infra_error"
    """Browser, site or endpoint failed. Such an episode has no outcome and is never trained on."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement of a whole episode."""

    success: bool
    score: float
    source: str
    """rule, orm or judge."""
    detail: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the outcome is judged on, gathered while the site still stood. Judging needs no site."""

    answer: str | None = None
    """The message of exit(), None if the episode ended otherwise."""
    page: Page | None = None
    """The last page."""
    contents: tuple[str, ...] = ()
    """The text that each target of the task's `program_html` selected, in the task's order; or what the task's verifier said."""


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """One episode."""

    id: str
    format: int = FORMAT
    task: Task
    attempt: int = 0
    policy: Policy
    subgoals: tuple[Subgoal, ...] = ()
    steps: tuple[Step, ...] = ()
    status: Status
    evidence: Evidence = Evidence()
    outcome: Outcome | None = None
    error: str = ""
    """For infra_error: what failed."""
    created: str = ""
    """ISO 8601, UTC."""

    @property
    def key(self) -> str:
        return episode_key(self.task, self.attempt, self.policy)

    @property
    def success(self) -> bool:
        return self.outcome is not None and self.outcome.success


def episode_key(task: Task, attempt: int, policy: Policy) -> str:
    """Two episodes with one key are the same episode: collecting again skips it."""
    # Settings that are off add nothing: keys, and the random draws made from them, are as in format 1.
    cut = (f"p{policy.top_p:g}" if policy.top_p != 1 else "") + (f"k{policy.top_k}" if policy.top_k else "")
    return f"{task.id}|{task.seed}|{attempt}|{policy.name}@{policy.checkpoint}|t{policy.temperature:g}s{policy.seed}{cut}"


def encode(trajectory: Trajectory) -> bytes:
    return msgspec.msgpack.encode(trajectory)


def decode(data: bytes, source: str = "record") -> Trajectory:
    """Reads one record.

    Raises:
        UserError: the record is of a newer format than this version reads, or is not a trajectory.
    """
    try:
        head = msgspec.msgpack.decode(data, type=_Head)
        if head.format > FORMAT:
            raise UserError(
                f"{source}: trajectory format {head.format} is newer than {FORMAT}, the newest this mira_jax reads; update mira_jax"
            )
        return msgspec.msgpack.decode(data, type=Trajectory)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not a trajectory record: {error}") from None


class _Head(msgspec.Struct):
    format: int
