"""The trajectory record, written by rollouts and read by training. One record is one episode."""

import enum
from typing import Any

import msgspec

from mira_jax.errors import UserError

FORMAT = 2
"""Format of the records written by this version. Format 2 adds the sampled token ids, their log-probabilities, the sampling
settings, and hashes of prompt, tokenizer and weights. Records of format 1 can be read; missing fields have their defaults. A field that
older readers may ignore is added without a new number."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The task of an episode, and where it starts."""

    id: str
    """Unique within the suite, for example `shop.buy_with_coupon.test.17`."""
    suite: str
    sites: tuple[str, ...]
    template: str
    split: str
    """train, validation or test."""
    seed: int
    """Seed for the content of the sites."""
    intent: str
    start_url: str
    """The URL with the site's placeholder instead of its address, for example `__SHOP__/`."""
    horizon: int
    """Maximum number of steps in an episode."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The model or script that produced the responses."""

    name: str
    checkpoint: str = ""
    fingerprint: str = ""
    """Fingerprint of the weights, as reported by the endpoint. Empty for scripts and for endpoints that do not report it."""
    temperature: float = 0.0
    top_p: float = 1.0
    """1: disabled."""
    top_k: int = 0
    """0: disabled."""
    prompt_version: str = ""
    prompt_max_tokens: int = 0
    tokenizer: str = ""
    """SHA-256 of the tokenizer's file."""
    seed: int = 0
    planner: str = ""
    """Identifies the planner and its settings. Empty: none."""
    forced_plan: str = ""
    """right or wrong: the suite wrote the first response, with a plan of that kind. The policy did not sample it: its `token_ids` and
    `log_probs` are None. Empty: the policy wrote all responses."""


class Subgoal(msgspec.Struct, frozen=True, kw_only=True):
    """A milestone of the task, with its check."""

    text: str
    check: str


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed response, in the grammar of `mira_jax.trajectories.actions`."""

    name: str
    argument: str | None = None
    element: str | None = None


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    prompt: int = 0
    response: int = 0


class Seconds(msgspec.Struct, frozen=True, kw_only=True):
    """Wall-clock seconds that one step spent in each part."""

    browser: float = 0.0
    policy: float = 0.0
    judge: float = 0.0
    planner: float = 0.0
    """Making the plan that the step's prompt shows. It overlaps with `browser`."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page as the agent saw it."""

    url: str
    """The URL with the site's placeholder instead of its address."""
    observation: str
    """The text of the page, by `rollouts.web.observation`."""
    screenshot: bytes | None = None
    """JPEG."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A planner's subgoals, and what it believes of them. It is what a prompt shows, not a label: see `Step.milestones`."""

    subgoals: tuple[str, ...] = ()
    """In order. Empty while the planner has given none."""
    done: tuple[bool, ...] = ()
    """Whether each is done, as the planner says."""
    current: int | None = None
    """Index of the subgoal to work on. None if all are done."""
    stalled: bool = False
    """Whether the prompt asks for other subgoals, because of no progress."""
    unanswered: bool = False
    """Whether the planner gave no valid answer before this step. The plan is then the previous one. Not shown."""

    def __post_init__(self) -> None:
        if len(self.done) != len(self.subgoals) or not (self.current is None or 0 <= self.current < len(self.subgoals)):
            raise ValueError("a plan's done and current do not match its subgoals")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One turn: the page before it, the response, and the state of the site after it."""

    index: int
    page: Page
    response: str
    """The complete text of the policy, without its end token."""
    reasoning: str = ""
    """What a chat model thought before the response. It is no part of later prompts, and nothing is trained on it."""
    cut: bool = False
    """Whether the response was cut at its token limit. It then has no end token."""
    action: Action | None = None
    error: str | None = None
    """Why the response could not be parsed, or the action failed. It is shown to the policy."""
    state: dict[str, Any] | None = None
    """What the suite reads of the site's state after this step, as the input of milestone checks. Never shown to the policy."""
    milestones: tuple[bool, ...] = ()
    """z_t: whether each subgoal is done after this step. Empty before labelling."""
    plan: Plan | None = None
    """The plan in the prompt of this step, as it was known then. None without a planner."""
    planner_tokens: TokenCounts = TokenCounts()
    """Tokens of the requests that made `plan`. Answers from the planner's cache take none."""
    prompt_hash: str = ""
    """Hash of the prompt's token ids, by `prompts.prompt_hash`. Empty for scripts and in format 1."""
    token_ids: tuple[int, ...] | None = None
    """The sampled tokens of the response, including the end token unless `cut`. None for scripts, in format 1, and for endpoints
    that do not return them. Such a response is tokenised from its text."""
    log_probs: tuple[float, ...] | None = None
    """Log-probability of each of `token_ids` under the model distribution: temperature 1, the whole vocabulary. In nats. None if
    unknown."""
    sampling_log_probs: tuple[float, ...] | None = None
    """Log-probability of each of `token_ids` under the distribution that it was drawn from, with the policy's temperature, top_p
    and top_k. In nats. None if unknown."""
    log_prob: float | None = None
    """Sum of the log-probabilities that the endpoint reported for the response's tokens, in nats."""
    tokens: TokenCounts = TokenCounts()
    seconds: Seconds = Seconds()


class Status(enum.StrEnum):
    """How an episode ended."""

    FINISHED = "finished"
    """The policy called exit()."""
    HORIZON = "horizon"
    STUCK = "stuck"
    PARSE_FAILURES = "parse_failures"
    INFRA_ERROR = "infra_error"
    """The browser, a site or the endpoint failed. Such an episode has no outcome and is never trained on."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a whole episode."""

    success: bool
    score: float
    source: str
    """How it was decided: rule, orm or judge."""
    detail: str = ""


class PlanGrade(msgspec.Struct, frozen=True, kw_only=True):
    """The grade of an episode's plan, which is its first response. A label, as the outcome is."""

    score: float
    """R_plan, in [0, 1]. With a rubric, the weighted sum of `dimensions` divided by its maximum (`mira_jax.trajectories.plan_grades`)."""
    dimensions: dict[str, int] = {}
    """Dimension of the rubric to its grade, 0 to 5. Empty if the plan was graded as a whole."""
    source: str
    """How it was decided: rule, or the name of the model."""
    rubric: str = ""
    """SHA-256 of the rubric's file, or name and version of the suite's rules. Empty if the plan was graded as a whole."""
    detail: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs for deciding the outcome, recorded while the site was running. Deciding does not require the site."""

    answer: str | None = None
    """The message of exit(). None if the episode ended in another way."""
    page: Page | None = None
    """The last page."""
    contents: tuple[str, ...] = ()
    """The text selected by each target of the task's `program_html`, in the task's order, or the output of the task's verifier."""


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
    plan_grade: PlanGrade | None = None
    """None before labelling, and for suites without plans."""
    error: str = ""
    """For infra_error: the failure."""
    created: str = ""
    """ISO 8601, UTC."""

    @property
    def key(self) -> str:
        return episode_key(self.task, self.attempt, self.policy)

    @property
    def success(self) -> bool:
        return self.outcome is not None and self.outcome.success


def episode_key(task: Task, attempt: int, policy: Policy) -> str:
    """Identifies an episode. An episode whose key is already present is not collected again."""
    # Disabled settings add nothing, so keys, and the random draws derived from them, are the same as in format 1.
    cut = (f"p{policy.top_p:g}" if policy.top_p != 1 else "") + (f"k{policy.top_k}" if policy.top_k else "")
    planner = f"|{policy.planner}" if policy.planner else ""
    forced = f"|{policy.forced_plan} plan" if policy.forced_plan else ""
    return f"{task.id}|{task.seed}|{attempt}|{policy.name}@{policy.checkpoint}|t{policy.temperature:g}s{policy.seed}{cut}{planner}{forced}"


def encode(trajectory: Trajectory) -> bytes:
    return msgspec.msgpack.encode(trajectory)


def decode(data: bytes, source: str = "record") -> Trajectory:
    """Reads one record.

    Raises:
        UserError: the record has a newer format than this version supports, or is not a trajectory.
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
