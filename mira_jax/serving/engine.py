"""The engine: one thread owns the sampler. Prompts wait in a queue, occupy free rows, and return completions."""

import collections
import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from mira_jax.models.gemma3 import Gemma3
from mira_jax.models.sampler import Sampler, Sampling, Scores, Work
from mira_jax.trajectories.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class QueueFull(Exception):
    """The queue is full."""


class EngineStopped(Exception):
    """The engine was closed or failed permanently. It accepts no more jobs."""


class NotFinite(Exception):
    """The model's logits contain NaN or infinity, so no token can be drawn."""

    def __init__(self) -> None:
        super().__init__("its logits are not finite numbers; check the weights of this model")


@dataclasses.dataclass(frozen=True)
class Alternatives:
    """The most likely tokens at one position, best first, with their log-probabilities in nats."""

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Job:
    """A request for one completion."""

    prompt: Sequence[int]
    sampling: Sampling
    """With max_tokens 0, no tokens are drawn."""
    stop: tuple[str, ...] = ()
    """Stop strings. The completion ends before the first of these in its text."""
    alternatives: int = 0
    """Number of most likely tokens to report at each position."""
    score_prompt: bool = False
    """Whether to also report the log-probabilities of the prompt's tokens."""
    progress: Callable[[str], None] | None = None
    """Called from the engine's thread with each piece of text that is final."""


@dataclasses.dataclass
class Generation:
    """The result of a job. `tokens` includes the end token, if one was drawn; `text` does not."""

    text: str = ""
    tokens: list[int] = dataclasses.field(default_factory=list)
    log_probs: list[float] = dataclasses.field(default_factory=list)
    """One per token, under the model distribution: temperature 1, the whole vocabulary; nats."""
    sampling_log_probs: list[float] = dataclasses.field(default_factory=list)
    """One per token, under the distribution that it was drawn from; nats. 0 for greedy completions."""
    alternatives: list[Alternatives] = dataclasses.field(default_factory=list)
    """One per token, if requested."""
    finish_reason: str = "length"
    """stop: an end token or a stop string; length: max_tokens."""
    prompt_log_probs: list[float] = dataclasses.field(default_factory=list)
    """For the second to last tokens of the prompt, if requested."""
    prompt_alternatives: list[Alternatives] = dataclasses.field(default_factory=list)
    fingerprint: str = ""
    """Of the weights."""


PER_TOKEN = ("tokens", "log_probs", "sampling_log_probs", "alternatives")
"""The lists of a completion that have one entry per drawn token."""


@dataclasses.dataclass
class Counters:
    """Counts since the engine was started."""

    completions: int = 0
    prompt_tokens: int = 0
    prefix_hits: int = 0
    """Number of prompts with a prefix cache hit."""
    prefix_tokens: int = 0
    """Number of `prompt_tokens` that came from the prefix cache."""
    drawn_tokens: int = 0
    decode_steps: int = 0
    """`drawn_tokens / decode_steps` is the average number of tokens per step, that is, of active rows."""
    most_rows: int = 0
    """Maximum number of completions decoded at the same time."""


class Engine:
    """Continuous batching: a new prompt is prefilled after at most a few decode steps, and leaves its row when it is done.

    Any thread may call `submit`. Everything else runs on the engine's own thread.
    """

    def __init__(self, sampler: Sampler, tokenizer: Tokenizer, queue_limit: int = 256, fingerprint: str = ""):
        """
        Args:
            queue_limit: maximum number of prompts that wait for a row.
            fingerprint: that of the weights.
        """
        self.tokenizer, self.queue_limit, self.fingerprint = tokenizer, queue_limit, fingerprint
        self.max_length, self.vocabulary_size = sampler.max_length, sampler.vocabulary_size
        self.counters = Counters()
        self._sampler = sampler
        self._end_ids = set(tokenizer.end_ids)
        self._waiting: collections.deque[tuple[Job, Future[Generation]]] = collections.deque()
        self._running: dict[int, _Running] = {}
        self._wake = threading.Condition()
        self._replacement: tuple[Gemma3, str, Future[None]] | None = None
        self._closed = self._dead = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    def submit(self, jobs: Sequence[Job]) -> list[Future[Generation]]:
        """Adds all jobs to the queue, or none. A cancelled future frees its row.

        Raises:
            QueueFull: the queue does not have room for all of them.
            EngineStopped: the engine is not running.
        """
        futures: list[Future[Generation]] = [Future() for _ in jobs]
        with self._wake:
            if not self.alive:
                raise EngineStopped("the server is stopping" if not self._dead else STOPPED)
            if len(self._waiting) + len(jobs) > self.queue_limit:
                raise QueueFull(f"{len(self._waiting)} prompts are waiting already; the limit is {self.queue_limit}")
            self._waiting.extend(zip(jobs, futures, strict=True))
            self._wake.notify()
        return futures

    def replace_weights(self, model: Gemma3, fingerprint: str) -> Future[None]:
        """Uses other weights as soon as the completions in progress have ended. Waiting prompts get the new ones.

        The future raises ValueError if the model has another architecture. The old weights are then kept.

        Raises:
            EngineStopped: the engine is not running.
            QueueFull: another replacement is in progress.
        """
        future: Future[None] = Future()
        with self._wake:
            if not self.alive:
                raise EngineStopped("the server is stopping" if not self._dead else STOPPED)
            if self._replacement:
                raise QueueFull("the weights are being replaced already")
            self._replacement = model, fingerprint, future
            self._wake.notify()
        return future

    def close(self) -> None:
        """Stops the thread and cancels unfinished jobs."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        try:
            self._serve()
        except Exception:
            log.exception("the engine stopped")
            self._dead = True
        with self._wake:
            # From here on `submit` raises, so no job can remain in the queue without a result.
            self._closed = True
        replaced = [self._replacement[2]] if self._replacement else []
        for future in [*(future for _, future in self._waiting), *(running.future for running in self._running.values()), *replaced]:
            if self._dead:
                _fail(future, EngineStopped(STOPPED))
            elif future.cancel():
                future.set_running_or_notify_cancel()
        self._waiting.clear()
        self._running.clear()

    def _serve(self) -> None:
        """Runs until the engine is closed. Propagates exceptions of the sampler's `reset`, which are not recoverable."""
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._waiting or self._running or self._replacement)
                if self._closed:
                    break
            try:
                if self._replacement and not self._running:
                    self._replace()
                self._admit()
                self._advance()
            except Exception as error:
                # The most likely cause is lack of memory. The running jobs fail, and the engine continues with empty rows.
                log.exception("the model failed")
                for running in self._running.values():
                    _fail(running.future, error)
                self._running.clear()
                self._sampler.reset()
        self._sampler.reset()

    def _replace(self) -> None:
        assert self._replacement is not None
        model, fingerprint, future = self._replacement
        self._replacement = None
        try:
            self._sampler.replace_weights(model)
        except ValueError as error:
            _fail(future, error)
            return
        except Exception as error:
            _fail(future, error)
            raise
        self.fingerprint = fingerprint
        if future.set_running_or_notify_cancel():
            future.set_result(None)

    def _admit(self) -> None:
        """Moves waiting prompts to free rows, first come, first served. None while weights wait to be replaced."""
        while not self._replacement and (batch := self._next_batch()):
            try:
                sound = [running for running in batch if not running.job.score_prompt or self._score_prompt(running)]
                self.counters.prompt_tokens += sum(len(running.job.prompt) for running in sound)
                for running in sound:
                    if not running.job.sampling.max_tokens:
                        self._resolve(running)
                if drawing := [running for running in sound if running.job.sampling.max_tokens]:
                    rows = self._sampler.insert([running.work for running in drawing])
                    self._running.update(zip(rows, drawing, strict=True))
            except Exception as error:
                for running in batch:
                    if not running.future.done():
                        _fail(running.future, error)
                raise
            self.counters.prefix_hits, self.counters.prefix_tokens = self._sampler.prefixes.hits, self._sampler.prefixes.tokens
        self.counters.most_rows = max(self.counters.most_rows, len(self._running))

    def _next_batch(self) -> list["_Running"]:
        """Takes the next prompts from the queue, as many as can be prefilled together. [] if none waits or no row is free."""
        batch: list[_Running] = []
        with self._wake:
            while self._waiting and len(batch) < self._sampler.free_rows:
                job, future = self._waiting[0]
                if not future.cancelled():
                    if batch and not self._sampler.is_batch([*(running.job.prompt for running in batch), job.prompt]):
                        break
                    batch.append(_Running(job, future, self.fingerprint))
                self._waiting.popleft()
        return batch

    def _score_prompt(self, running: "_Running") -> bool:
        """Adds the log-probabilities of the prompt. Returns False if they are not finite, and fails the job."""
        scores = self._sampler.score(running.job.prompt, running.job.alternatives > 0)
        if np.isfinite(scores.log_probs).all():
            running.add_prompt(scores)
            return True
        _fail(running.future, NotFinite())
        return False

    def _advance(self) -> None:
        for row, running in list(self._running.items()):
            if running.future.cancelled():
                self._leave(row)
        if not self._running:
            return
        alternatives = any(running.job.alternatives for running in self._running.values())
        chunk = self._sampler.advance(until_free=bool(self._waiting), alternatives=alternatives)
        self.counters.decode_steps += chunk.steps
        for row, running in list(self._running.items()):
            count = int(chunk.count[row])
            self.counters.drawn_tokens += count
            if not np.isfinite(chunk.log_probs[row, :count]).all():
                self._leave(row)
                _fail(running.future, NotFinite())
                continue
            drawn = Generation(
                tokens=chunk.tokens[row, :count].tolist(), log_probs=chunk.log_probs[row, :count].tolist(),
                sampling_log_probs=chunk.sampling_log_probs[row, :count].tolist(),
                alternatives=_alternatives(chunk.top_ids[row, :count], chunk.top_log_probs[row, :count], running.job.alternatives),
            )  # fmt: skip
            if running.add(drawn, bool(chunk.active[row]), self.tokenizer, self._end_ids):
                self._leave(row)
                self._resolve(running)

    def _leave(self, row: int) -> None:
        del self._running[row]
        self._sampler.release(row)

    def _resolve(self, running: "_Running") -> None:
        self.counters.completions += 1
        if running.future.set_running_or_notify_cancel():
            running.future.set_result(running.completion)


class _Running:
    """A job in a row, with its completion so far."""

    def __init__(self, job: Job, future: Future[Generation], fingerprint: str):
        self.job, self.future, self.completion = job, future, Generation(fingerprint=fingerprint)
        self.work = Work(job.prompt, job.sampling, job.alternatives > 0)
        self._sent = 0

    def add_prompt(self, scores: Scores) -> None:
        self.completion.prompt_log_probs = scores.log_probs.tolist()
        self.completion.prompt_alternatives = _alternatives(scores.top_ids, scores.top_log_probs, self.job.alternatives)

    def add(self, drawn: Generation, unfinished: bool, tokenizer: Tokenizer, end_ids: set[int]) -> bool:
        """Adds the tokens just drawn. Returns True if the completion is finished."""
        completion = self.completion
        before = len(completion.tokens)
        for name in PER_TOKEN:
            getattr(completion, name).extend(getattr(drawn, name))
        completion.text = tokenizer.decode(completion.tokens)
        if any(stop in completion.text for stop in self.job.stop):
            # Tokens of this chunk after the one that completes the stop string are discarded.
            kept = before + 1
            while not any(stop in tokenizer.decode(completion.tokens[:kept]) for stop in self.job.stop):
                kept += 1
            for name in PER_TOKEN:
                del getattr(completion, name)[kept:]
            text = tokenizer.decode(completion.tokens)
            completion.text = text[: min(text.find(stop) for stop in self.job.stop if stop in text)]
            unfinished, completion.finish_reason = False, "stop"
        elif completion.tokens and completion.tokens[-1] in end_ids:
            completion.finish_reason = "stop"
        if self.job.progress:
            self._report_progress(whole=not unfinished)
        return not unfinished

    def _report_progress(self, whole: bool) -> None:
        """Reports the text that further tokens cannot change. Holds back a possible start of a stop string and incomplete characters."""
        text = self.completion.text
        if not whole:
            text = text.rstrip("\ufffd")
        sure = len(text) if whole else min([len(text), *(len(text) - _overlap(text, stop) for stop in self.job.stop)])
        if sure > self._sent:
            self.job.progress(text[self._sent : sure])
            self._sent = sure


def _overlap(text: str, stop: str) -> int:
    """The length of the longest prefix of `stop` at the end of `text`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _alternatives(ids: np.ndarray, log_probs: np.ndarray, count: int) -> list[Alternatives]:
    """Converts arrays of tokens x K."""
    if not count:
        return []
    return [Alternatives(tuple(i[:count]), tuple(p[:count])) for i, p in zip(ids.tolist(), log_probs.tolist(), strict=True)]


STOPPED = "the engine stopped after a failure that it could not recover from; the server's log has the cause; start it again"


def _fail(future: Future, error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
