"""Converts episodes to examples. By default each step is an example: its prompt and response as tokens."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from mira_jax.data.examples import Example, Examples, ExamplesOf, Turn
from mira_jax.errors import UserError
from mira_jax.progress import track
from mira_jax.trajectories.prompts import PromptConfig, Round, prompt_hash, prompt_ids, response_ids, token_problem
from mira_jax.trajectories.records import Policy, Status, Step, Trajectory
from mira_jax.trajectories.tokenizer import Tokenizer


def tokenize(
    reader: Sequence[Trajectory],
    prompt: PromptConfig,
    tokenizer: Tokenizer,
    examples_of: ExamplesOf | None = None,
    *,
    progress: bool = True,
) -> Examples:
    """Reads every episode once and makes its examples, by default with `step_examples`. Deterministic.

    Raises:
        UserError: see `step_examples`.
    """
    examples_of = examples_of or step_examples
    encoder = _Memo(tokenizer)
    tasks: dict[tuple[str, int], int] = {}
    parts: list[np.ndarray] = []
    lengths, turn_counts, turns, usable, successful, episode, task = [], [], [], [], [], [], []
    for record, trajectory in enumerate(track(reader, "tokenize", "episodes", len(reader), shown=progress)):
        count, before = len(trajectory.steps), len(usable)
        sound = trajectory.status is not Status.INFRA_ERROR
        made = examples_of(trajectory, prompt, encoder) if sound else (Example([], [Turn(step, 0, 0)]) for step in range(count))
        for example in made:
            if not example.turns or example.turns[-1].stop != len(example.tokens):
                raise ValueError(f"trajectory {trajectory.id}: an example has no turns, or tokens after its last response")
            parts.append(np.asarray(example.tokens, np.int32))
            lengths.append(len(example.tokens))
            turn_counts.append(len(example.turns))
            turns += [(before + step, start, stop) for step, start, stop in example.turns]
        usable += [sound] * count
        successful += [trajectory.success] * count
        episode += [record] * count
        task += [tasks.setdefault((trajectory.task.id, trajectory.task.seed), record)] * count
    turns_Mx3 = np.array(turns, np.int64).reshape(-1, 3)
    return Examples(
        tokens=np.concatenate(parts) if parts else np.zeros(0, np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        first_turn=np.concatenate([[0], np.cumsum(turn_counts, dtype=np.int64)]),
        turn_step=turns_Mx3[:, 0].copy(),
        turn_start=turns_Mx3[:, 1].astype(np.int32),
        turn_stop=turns_Mx3[:, 2].astype(np.int32),
        usable=np.array(usable, bool),
        successful=np.array(successful, bool),
        episode=np.array(episode, np.int32),
        task=np.array(task, np.int32),
    )


def step_examples(trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer) -> Iterator[Example]:
    """Makes one example per step: its prompt, identical to that of the rollout, and its response.

    Prompts are encoded from text. Responses are the sampled tokens if the episode contains them, otherwise they are encoded
    from text.

    Raises:
        UserError: a prompt differs from the one that the policy read, or a response's tokens do not match its text.
    """
    past: list[Round] = []
    for number, step in enumerate(trajectory.steps):
        prompt_tokens = prompt_ids(trajectory.task.intent, past, step.page.observation, prompt, tokenizer)
        if step.prompt_hash and step.prompt_hash != prompt_hash(prompt_tokens):
            raise UserError(
                f"trajectory {trajectory.id}: the prompt of step {step.index} is not the one that the policy read: "
                + _cause(trajectory.policy, prompt, tokenizer)
            )
        tokens = [*prompt_tokens, *_response(trajectory, step, tokenizer)]
        yield Example(tokens, [Turn(number, len(prompt_tokens), len(tokens))])
        past.append(Round(step.response, step.error))


def _response(trajectory: Trajectory, step: Step, tokenizer: Tokenizer) -> list[int]:
    if step.token_ids is None:
        return response_ids(step.response, tokenizer, step.cut)
    if problem := token_problem(step.token_ids, step.response, tokenizer):
        raise UserError(
            f"trajectory {trajectory.id}: the tokens of step {step.index} {problem}; "
            "use the tokenizer of the model that wrote these episodes"
        )
    return list(step.token_ids)


def _cause(policy: Policy, prompt: PromptConfig, tokenizer: Tokenizer) -> str:
    """Why a prompt differs from that of the rollout, with the remedy."""
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
    """A tokenizer with a cache: consecutive steps share their history, and pages repeat."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.encode = functools.lru_cache(maxsize=100_000)(tokenizer.encode)

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)


def choose(examples: Examples, keep: np.ndarray, only: str) -> np.ndarray:
    """int64: indices of the steps to train on, increasing.

    Args:
        keep: bool [N], the steps that the recipe selects.
        only: all or success.

    Raises:
        UserError: no steps are left.
    """
    if only not in ("all", "success"):
        raise UserError(f"data.only: {only!r} is none of all, success")
    chosen = examples.usable & keep
    if only == "success":
        chosen &= examples.successful
    if not chosen.any():
        raise UserError(
            f"data.folders: none of the {examples.steps} steps is left to train on ({int(examples.usable.sum())} are of sound episodes, "
            f"{int(examples.successful.sum())} of successful ones, the recipe chose {int(keep.sum())}; data.only is {only})"
        )
    return np.flatnonzero(chosen)


def corpus(reader: Sequence[Trajectory], most: int = 20_000, seed: int = 0) -> list[str]:
    """Distinct texts to train a tokenizer on: all intents and responses, and a sample of pages. At most `most` of each kind."""
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
