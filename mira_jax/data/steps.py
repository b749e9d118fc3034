"""Step examples: each step of each episode as its prompt and its response, in tokens."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mira_jax.errors import UserError
from mira_jax.progress import track
from mira_jax.trajectories.prompts import PromptConfig, Round, prompt_hash, prompt_ids, response_ids, token_problem
from mira_jax.trajectories.records import Policy, Status, Step, Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class StepExamples:
    """All steps of a reader, in the order of its `StepIndex`. N steps."""

    tokens: np.ndarray
    """int32: prompt and response of step 0, of step 1, ..."""
    starts: np.ndarray
    """int64 [N + 1]: where in `tokens` each step begins."""
    prompt_lengths: np.ndarray
    """int32 [N]. 0, like the response's, for steps that are never trained on."""
    usable: np.ndarray
    """bool [N]: false for steps of episodes that ended in an infrastructure error."""
    successful: np.ndarray
    """bool [N]: the step's episode succeeded."""
    episode: np.ndarray
    """int32 [N]: the record each step is of."""
    task: np.ndarray
    """int32 [N]: equal for episodes of one task, by its id and seed; the first record of the task."""

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def response_lengths(self) -> np.ndarray:
        """int32 [N], end token included where there is one."""
        return (np.diff(self.starts) - self.prompt_lengths).astype(np.int32)

    def prompt(self, step: int) -> np.ndarray:
        start = self.starts[step]
        return self.tokens[start : start + self.prompt_lengths[step]]

    def response(self, step: int) -> np.ndarray:
        return self.tokens[self.starts[step] + self.prompt_lengths[step] : self.starts[step + 1]]

    def fingerprint(self, more: Iterable[np.ndarray] = ()) -> str:
        """Two sets of examples with one fingerprint have the same tokens in the same order, and the same arrays `more`."""
        digest = hashlib.sha256()
        for array in (self.tokens, self.starts, self.prompt_lengths, *more):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


def tokenize(reader: Sequence[Trajectory], prompt: PromptConfig, tokenizer: Tokenizer, progress: bool = True) -> StepExamples:
    """Reads every episode once and encodes its steps exactly as rollouts do. Deterministic.

    Prompts are made from text. Responses are the tokens that were drawn, where the episode holds them, else made from text.

    Raises:
        UserError: a prompt is not the one that the policy read, or a response's tokens are not those of its text.
    """
    encoder = _Memo(tokenizer)
    tasks: dict[tuple[str, int], int] = {}
    parts: list[np.ndarray] = []
    lengths, prompt_lengths, usable, successful, episode, task = [], [], [], [], [], []
    for record, trajectory in enumerate(track(reader, "tokenize", "episodes", len(reader), shown=progress)):
        count = len(trajectory.steps)
        sound = trajectory.status is not Status.INFRA_ERROR
        encoded = _steps(trajectory, prompt, encoder) if sound else [([], [])] * count
        for prompt_tokens, response_tokens in encoded:
            parts += [np.asarray(prompt_tokens, np.int32), np.asarray(response_tokens, np.int32)]
            lengths.append(len(prompt_tokens) + len(response_tokens))
            prompt_lengths.append(len(prompt_tokens))
        usable += [sound] * count
        successful += [trajectory.success] * count
        episode += [record] * count
        task += [tasks.setdefault((trajectory.task.id, trajectory.task.seed), record)] * count
    return StepExamples(
        tokens=np.concatenate(parts) if parts else np.zeros(0, np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        prompt_lengths=np.array(prompt_lengths, np.int32),
        usable=np.array(usable, bool),
        successful=np.array(successful, bool),
        episode=np.array(episode, np.int32),
        task=np.array(task, np.int32),
    )


def _steps(trajectory: Trajectory, prompt: PromptConfig, tokenizer: "Tokenizer | _Memo") -> Iterator[tuple[list[int], list[int]]]:
    past: list[Round] = []
    for step in trajectory.steps:
        prompt_tokens = prompt_ids(trajectory.task.intent, past, step.page.observation, prompt, tokenizer)
        if step.prompt_hash and step.prompt_hash != prompt_hash(prompt_tokens):
            raise UserError(
                f"trajectory {trajectory.id}: the prompt of step {step.index} is not the one that the policy read: "
                + _cause(trajectory.policy, prompt, tokenizer)
            )
        yield prompt_tokens, _response(trajectory, step, tokenizer)
        past.append(Round(step.response, step.error))


def _response(trajectory: Trajectory, step: Step, tokenizer: "Tokenizer | _Memo") -> list[int]:
    if step.token_ids is None:
        return response_ids(step.response, tokenizer, step.cut)
    if problem := token_problem(step.token_ids, step.response, tokenizer):
        raise UserError(
            f"trajectory {trajectory.id}: the tokens of step {step.index} {problem}; "
            "use the tokenizer of the model that wrote these episodes"
        )
    return list(step.token_ids)


def _cause(policy: Policy, prompt: PromptConfig, tokenizer: "Tokenizer | _Memo") -> str:
    """Why a prompt is another than at the rollout, with the remedy."""
    for key, then, now in (
        ("version", policy.prompt_version, prompt.version),
        ("max_tokens", policy.prompt_max_tokens, prompt.max_tokens),
    ):
        if then != now:
            return f"prompt.{key} was {then} and is {now}; set it to {then}"
    if policy.tokenizer != tokenizer.sha256:
        return (
            f"its tokenizer has the SHA-256 {policy.tokenizer[:12]}, {tokenizer.path} has {tokenizer.sha256[:12]}; "
            "use the tokenizer of the model that wrote these episodes"
        )
    return "tokenizer and settings are the same: the record was altered, or another version of mira_jax made the prompt; use that version"


class _Memo:
    """A tokenizer that remembers: the history of a step was encoded at the step before, and pages come again."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.encode = functools.lru_cache(maxsize=100_000)(tokenizer.encode)

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)


def choose(examples: StepExamples, keep: np.ndarray, only: str) -> np.ndarray:
    """int64: the numbers of the steps to train on, rising.

    Args:
        keep: bool [N], the recipe's choice.
        only: all or success.

    Raises:
        UserError: nothing is left.
    """
    if only not in ("all", "success"):
        raise UserError(f"data.only: {only!r} is none of all, success")
    chosen = examples.usable & keep
    if only == "success":
        chosen &= examples.successful
    if not chosen.any():
        raise UserError(
            f"data.folders: none of the {len(examples)} steps is left to train on ({int(examples.usable.sum())} are of sound episodes, "
            f"{int(examples.successful.sum())} of successful ones, the recipe chose {int(keep.sum())}; data.only is {only})"
        )
    return np.flatnonzero(chosen)


def corpus(reader: Sequence[Trajectory], most: int = 20_000, seed: int = 0) -> list[str]:
    """Distinct texts to train a tokenizer on: every intent and response, and a sample of pages. At most `most` of each kind."""
    intents: dict[str, None] = {}
    responses: dict[str, None] = {}
    pages: dict[str, None] = {}
    for trajectory in reader:
        intents[trajectory.task.intent] = None
        for step in trajectory.steps:
            responses[step.response] = None
            pages[step.page.observation] = None
    generator = np.random.default_rng(seed)
    texts = []
    for kind in (intents, responses, pages):
        items = list(kind)
        picked = range(len(items)) if len(items) <= most else sorted(generator.choice(len(items), most, replace=False))
        texts += [items[index] for index in picked if items[index]]
    return texts
