"""Converts episodes to examples. By default each step is an example: its prompt and response as tokens."""

import dataclasses
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mira_jax.data.examples import Example, Examples, ExamplesOf, Turn
from mira_jax.errors import UserError
from mira_jax.progress import track
from mira_jax.trajectories.prompts import PromptConfig, Round, checklist, plan_text, prompt_hash, prompt_ids, response_ids, token_problem
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
    """Reads every episode once and makes its examples, in memory, by default with `step_examples`. Deterministic.

    Raises:
        UserError: see `step_examples`.
    """
    builder = ExamplesBuilder(prompt, tokenizer, examples_of or step_examples)
    for trajectory in track(reader, "tokenize", "episodes", len(reader), shown=progress):
        builder.add(trajectory)
    return builder.build()


class ExamplesBuilder:
    """Makes the examples of one episode after another."""

    def __init__(
        self, prompt: PromptConfig, tokenizer: Tokenizer, examples_of: ExamplesOf, write: Callable[[np.ndarray], Any] | None = None
    ):
        """`write` is called with the tokens of each example, int32, which are then not kept. Default: they are kept in memory."""
        self._parts: list[np.ndarray] = []
        self._prompt, self._encoder, self._examples_of = prompt, _Memo(tokenizer), examples_of
        self._write = write or self._parts.append
        self._tasks: dict[tuple[str, int], int] = {}
        self._records = 0
        self._lengths, self._turn_counts = array("q"), array("q")
        self._turn_step, self._turn_start, self._turn_stop = array("q"), array("i"), array("i")
        self._usable, self._successful, self._episode, self._task = array("b"), array("b"), array("i"), array("i")

    def add(self, trajectory: Trajectory) -> None:
        """Makes the examples of the next episode. Raises UserError: see `step_examples`."""
        record, count, before = self._records, len(trajectory.steps), len(self._usable)
        sound = trajectory.status is not Status.INFRA_ERROR
        empty = (Example([], [Turn(step, 0, 0)]) for step in range(count))
        for example in self._examples_of(trajectory, self._prompt, self._encoder) if sound else empty:
            if not example.turns or example.turns[-1].stop != len(example.tokens):
                raise ValueError(f"trajectory {trajectory.id}: an example has no turns, or tokens after its last response")
            self._write(np.asarray(example.tokens, np.int32))
            self._lengths.append(len(example.tokens))
            self._turn_counts.append(len(example.turns))
            for step, start, stop in example.turns:
                self._turn_step.append(before + step)
                self._turn_start.append(start)
                self._turn_stop.append(stop)
        self._usable.extend([sound] * count)
        self._successful.extend([trajectory.success] * count)
        self._episode.extend([record] * count)
        self._task.extend([self._tasks.setdefault((trajectory.task.id, trajectory.task.seed), record)] * count)
        self._records += 1

    def build(self) -> Examples:
        """The examples of all episodes added, without tokens if these were written."""
        return Examples(
            tokens=np.concatenate(self._parts) if self._parts else np.zeros(0, np.int32),
            starts=np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)]),
            first_turn=np.concatenate([[0], np.cumsum(self._turn_counts, dtype=np.int64)]),
            turn_step=np.array(self._turn_step, np.int64),
            turn_start=np.array(self._turn_start, np.int32),
            turn_stop=np.array(self._turn_stop, np.int32),
            usable=np.array(self._usable, bool),
            successful=np.array(self._successful, bool),
            episode=np.array(self._episode, np.int32),
            task=np.array(self._task, np.int32),
        )


def step_examples(trajectory: Trajectory, prompt: PromptConfig, tokenizer: Tokenizer) -> Iterator[Example]:
    """Makes one example per step: its prompt, identical to that of the rollout with the plan that it showed, and its response.

    Prompts are encoded from text. Responses are the sampled tokens if the episode contains them, otherwise they are encoded
    from text.

    Raises:
        UserError: a prompt differs from the one that the policy read, a response's tokens do not match its text, `prompt.subgoals` is
            set and the episode lacks milestones, or the first response was given to the policy.
    """
    if kind := trajectory.policy.forced_plan:
        raise UserError(
            f"trajectory {trajectory.id}: its first response is not the policy's own but a {kind} plan that was given to it "
            "(policy.forced_plan); train on other folders"
        )
    past: list[Round] = []
    subgoals = [subgoal.text for subgoal in trajectory.subgoals]
    done = np.zeros(len(subgoals), bool)
    if prompt.subgoals and any(len(step.milestones) != len(done) or not len(done) for step in trajectory.steps):
        raise UserError(f"prompt.subgoals: trajectory {trajectory.id} lacks milestones; label its episodes (`mira label`)")
    as_read = dataclasses.replace(prompt, subgoals=False)
    for number, step in enumerate(trajectory.steps):
        prompt_tokens = prompt_ids(trajectory.task.intent, past, step.page.observation, as_read, tokenizer, step.plan)
        if step.prompt_hash and step.prompt_hash != prompt_hash(prompt_tokens):
            raise UserError(
                f"trajectory {trajectory.id}: the prompt of step {step.index} is not the one that the policy read: "
                + _cause(trajectory.policy, prompt, tokenizer)
            )
        if prompt.subgoals:
            page = checklist(subgoals, done.tolist(), prompt.version) + step.page.observation
            prompt_tokens = prompt_ids(trajectory.task.intent, past, page, prompt, tokenizer)
            done |= np.array(step.milestones, bool)
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
    """A tokenizer that remembers recent texts: consecutive steps share their history, and pages repeat."""

    def __init__(self, tokenizer: Tokenizer, most: int = 16 * 2**20):
        """`most`: the number of tokens, of 4 bytes each, and of texts to remember."""
        self._tokenizer, self._room = tokenizer, most
        self._recent: OrderedDict[str, array] = OrderedDict()

    def encode(self, text: str) -> list[int]:
        if (known := self._recent.get(text)) is not None:
            self._recent.move_to_end(text)
            return known.tolist()
        tokens = self._tokenizer.encode(text)
        self._recent[text] = array("i", tokens)
        self._room -= len(tokens) + 1
        while self._room < 0:
            self._room += len(self._recent.popitem(last=False)[1]) + 1
        return tokens

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
    """Distinct texts to train a tokenizer on: all intents, responses and plans, and a sample of pages. At most `most` of each kind."""
    intents: dict[str, None] = {}
    plans: dict[str, None] = {}
    responses: dict[str, None] = {}
    pages: dict[str, None] = {}
    for trajectory in reader:
        intents[trajectory.task.intent] = None
        for step in trajectory.steps:
            responses[step.response] = None
            pages[step.page.observation] = None
            plans[plan_text(step.plan, "compact")] = None
    generator = np.random.default_rng(seed)
    texts = []
    for kind in (intents, responses, pages, plans):
        items = list(kind)
        picked = range(len(items)) if len(items) <= most else sorted(generator.choice(len(items), most, replace=False))
        texts += [items[index] for index in picked if items[index]]
    return texts
