"""OpenAI's requests and responses: what is read, what is refused, what is written. No HTTP, no model.

Reference: https://platform.openai.com/docs/api-reference/completions and .../chat. A field that is not known, or
that asks for something this server does not do, is refused by name rather than ignored.
"""

import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from mira_jax.models.sampler import TOP, Sampling
from mira_jax.serving.engine import Alternatives, Completion, Job
from mira_jax.trajectories.chat import ChatError
from mira_jax.trajectories.tokenizer import Tokenizer


class RequestError(Exception):
    """A request that can't be served: an HTTP status, and OpenAI's error object."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None, retry_after: int | None = None):
        super().__init__(message)
        kind = {404: "not_found_error", 429: "rate_limit_error"}.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.status, self.retry_after = status, retry_after
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]
MOST_CHOICES = 128
Count = Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)]
Top = Annotated[int, msgspec.Meta(ge=0, le=TOP)]
Tokens = Annotated[int, msgspec.Meta(ge=0)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None


class _Common(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The fields that both kinds of request have. null means the default, as in OpenAI's API."""

    model: str | None = None
    max_tokens: Tokens | None = None
    temperature: NonNegative | None = None
    """Default 1; 0 takes the most likely token."""
    top_p: Fraction | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    """Draws from this many of the most likely tokens, as in vLLM; 0, -1 and null: from all."""
    n: Count | None = None
    seed: int | None = None
    """The same request with the same seed gives the same completions. Default: a new seed each time."""
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    return_token_ids: bool | None = None
    """Adds `prompt_token_ids` and `token_ids` to each choice, as in vLLM; chat responses also have `prompt_token_ids` where vLLM does."""
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    def stops(self) -> tuple[str, ...]:
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if "" in stops:
            raise RequestError("stop: an empty string would end every completion at once", param="stop")
        return stops

    def refuse_unsupported(self) -> None:
        for name in ("presence_penalty", "frequency_penalty", "logit_bias"):
            if getattr(self, name):
                raise RequestError(f"{name} is not supported by this server; leave it out", param=name)
        for name in ("logprobs", "echo", "return_token_ids"):
            asked = getattr(self, name, None)
            if self.stream and asked is not None and asked is not False:
                raise RequestError(f"{name} can't be streamed; leave out stream", param=name)


class CompletionRequest(_Common, kw_only=True):
    """POST /v1/completions."""

    prompt: Any = None
    """A text, a list of token ids, or a list of either. A text gets `bos` before it; turn marks in it are plain characters."""
    logprobs: Top | None = None
    echo: bool | None = None
    best_of: Count | None = None
    suffix: str | None = None


class Message(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: Any
    """A text, or a list of parts {"type": "text", "text": ...}."""
    name: str | None = None


class ChatRequest(_Common, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None


Request = TypeVar("Request", bound=_Common)


def parse(kind: type[Request], body: bytes) -> Request:
    """Raises RequestError if the body is not JSON, or a field is unknown or of the wrong type."""
    try:
        request = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(str(error)) from None
    request.refuse_unsupported()
    return request


class Served(msgspec.Struct, frozen=True):
    """The model that answers, as its responses describe it."""

    name: str
    """What clients ask for."""
    fingerprint: str
    """Of the weights, in hexadecimal: `mira_jax.training.load.model_fingerprint`."""
    dtype: str
    """Of parameters, activations and cache."""


class Prompts(msgspec.Struct):
    """What a request asks to have completed: one list of token ids per prompt."""

    ids: list[list[int]]
    texts: list[str]
    """As echoed."""


def completion_prompts(request: CompletionRequest, tokenizer: Tokenizer) -> Prompts:
    """Reads `prompt` in its four forms."""
    prompt = request.prompt
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and all(type(item) is int for item in prompt)):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise RequestError("prompt: expected a text, a list of token ids, or a non-empty list of either", param="prompt")
    prompts = Prompts([], [])
    for item in prompt:
        if isinstance(item, str):
            ids = [tokenizer.bos_id, *tokenizer.encode(item)]
        elif isinstance(item, list) and item and all(type(token) is int for token in item):
            ids = item
            worst = min(ids) if min(ids) < 0 else max(ids)
            if not 0 <= worst < tokenizer.vocabulary_size:
                raise RequestError(f"prompt: token id {worst} is not in the vocabulary of {tokenizer.vocabulary_size}", param="prompt")
        else:
            raise RequestError("prompt: expected a text, a list of token ids, or a non-empty list of either", param="prompt")
        prompts.ids.append(ids)
        prompts.texts.append(item if isinstance(item, str) else tokenizer.decode(ids))
    return prompts


def chat_prompt(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """The conversation by the model's chat template, and the head of the answer."""
    if messages[-1].role != "user":
        raise RequestError("messages: the last message must be the user's", param="messages")
    conversation = [
        # OpenAI's newer name for system messages, which templates don't know.
        {"role": "system" if message.role == "developer" else message.role, "content": _content(message.content, index)}
        for index, message in enumerate(messages)
    ]
    try:
        return tokenizer.encode_chat(conversation)
    except ChatError as error:
        raise RequestError(f"messages: {error}", param="messages") from None


def _content(content: Any, index: int) -> Any:
    if isinstance(content, str):
        return content
    is_text = lambda part: isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)  # noqa: E731
    if isinstance(content, list) and content and all(map(is_text, content)):
        return content
    raise RequestError(
        f'messages: content of message {index} must be a text or a list of {{"type": "text", "text": ...}}', param="messages"
    )


def completion_jobs(request: CompletionRequest, prompts: Prompts, max_length: int) -> list[Job]:
    """One job per choice, prompt by prompt."""
    if request.suffix:
        raise RequestError("suffix is not supported by this server; leave it out", param="suffix")
    n = request.n or 1
    if request.best_of not in (None, n):
        raise RequestError("best_of is not supported by this server; ask for n and choose", param="best_of")
    max_tokens = 16 if request.max_tokens is None else request.max_tokens
    if max_tokens == 0 and not request.echo:
        raise RequestError("max_tokens: 0 is of use with echo alone", param="max_tokens")
    score = bool(request.echo) and request.logprobs is not None
    return _jobs(request, prompts.ids, n, max_tokens, max_length, request.logprobs or 0, score)


def chat_jobs(request: ChatRequest, prompt: list[int], max_length: int) -> list[Job]:
    """One job per choice. Without a limit of its own the answer may fill what the prompt leaves."""
    if request.top_logprobs and not request.logprobs:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    limits = [limit for limit in (request.max_completion_tokens, request.max_tokens) if limit is not None]
    max_tokens = limits[0] if limits else max(1, max_length - len(prompt))
    if max_tokens == 0:
        raise RequestError("max_tokens: must be at least 1", param="max_tokens")
    return _jobs(request, [prompt], request.n or 1, max_tokens, max_length, request.top_logprobs or 0, False)


def _jobs(
    request: _Common, prompts: list[list[int]], n: int, max_tokens: int, max_length: int, alternatives: int, score_prompt: bool
) -> list[Job]:
    jobs = []
    seed = secrets.randbits(32) if request.seed is None else request.seed
    temperature = 1.0 if request.temperature is None else request.temperature
    for index, prompt in enumerate(prompts):
        if len(prompt) + max_tokens > max_length:
            raise RequestError(
                f"this server's maximum length is {max_length} tokens, but the prompt has {len(prompt)} and max_tokens is {max_tokens}; "
                "shorten the prompt or the completion",
                param="max_tokens" if len(prompt) < max_length else "prompt",
                code="context_length_exceeded",
            )
        for choice in range(n):
            # One random stream per prompt and choice. Those of the first prompt do not depend on whether others follow.
            stream = index * MOST_CHOICES + choice
            sampling = Sampling(max_tokens, temperature, request.top_p or 1.0, seed, stream, max(request.top_k or 0, 0))
            jobs.append(Job(prompt, sampling, request.stops(), alternatives, score_prompt and choice == 0))
    return jobs


def completion_response(
    request: CompletionRequest,
    model: Served,
    prompts: Prompts,
    jobs: Sequence[Job],
    completions: Sequence[Completion],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    n = request.n or 1
    choices = []
    for index, (job, completion) in enumerate(zip(jobs, completions, strict=True)):
        scored = completions[index - index % n]
        text = completion.text
        tokens, log_probs, best = completion.tokens, completion.log_probs, completion.alternatives
        if request.echo:
            text = prompts.texts[index // n] + text
            tokens = [*job.prompt, *tokens]
            log_probs = [None, *scored.prompt_log_probs, *log_probs]
            best = [None, *scored.prompt_alternatives, *best]
        choice = {"index": index, "text": text, "finish_reason": completion.finish_reason, "logprobs": None}
        if request.logprobs is not None:
            unknown = [None] * (len(tokens) - len(completion.tokens))
            choice["logprobs"] = {
                **_log_probs(tokens, log_probs, best if request.logprobs else None, tokenizer),
                "sampling_logprobs": unknown + completion.sampling_log_probs,
            }
        if request.return_token_ids:
            choice |= {"prompt_token_ids": list(job.prompt), "token_ids": completion.tokens}
        choices.append(choice)
    return {**head("cmpl", "text_completion", model), "choices": choices, "usage": usage(prompts.ids, completions)}


def chat_response(
    request: ChatRequest, model: Served, prompt: list[int], completions: Sequence[Completion], tokenizer: Tokenizer
) -> dict[str, Any]:
    choices = []
    for index, completion in enumerate(completions):
        choice: dict[str, Any] = {
            "index": index,
            "message": {"role": "assistant", "content": completion.text, "refusal": None},
            "finish_reason": completion.finish_reason,
            "logprobs": None,
        }
        if request.logprobs:
            choice["logprobs"] = {
                "content": _chat_log_probs(completion, tokenizer), "refusal": None, "sampling_logprobs": completion.sampling_log_probs
            }  # fmt: skip
        if request.return_token_ids:
            choice |= {"prompt_token_ids": prompt, "token_ids": completion.tokens}
        choices.append(choice)
    extra = {"prompt_token_ids": prompt} if request.return_token_ids else {}
    return {**head("chatcmpl", "chat.completion", model), "choices": choices, "usage": usage([prompt], completions), **extra}


def head(prefix: str, kind: str, model: Served) -> dict[str, Any]:
    """What every response begins with."""
    id = f"{prefix}-{uuid.uuid4().hex}"
    return {"id": id, "object": kind, "created": int(time.time()), "model": model.name, "system_fingerprint": model.fingerprint}


def usage(prompts: Sequence[Sequence[int]], completions: Sequence[Completion]) -> dict[str, int]:
    """Each prompt counts once, however many completions it has; end tokens count."""
    read, drawn = sum(map(len, prompts)), sum(len(completion.tokens) for completion in completions)
    return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}


def _log_probs(
    tokens: Sequence[int], log_probs: Sequence[float | None], best: Sequence[Alternatives | None] | None, tokenizer: Tokenizer
) -> dict[str, Any]:
    """OpenAI's four parallel lists. Offsets count characters of the text, in which marks take none."""
    names = [tokenizer.piece(token) for token in tokens]
    top = None
    if best is not None:
        top = [None if alternatives is None else dict(_named(alternatives, tokenizer)) for alternatives in best]
        # The drawn token is always among them, as in OpenAI's API, even when it is not one of the likely.
        for alternatives, name, log_prob in zip(top, names, log_probs, strict=True):
            if alternatives is not None:
                alternatives.setdefault(name, log_prob)
    return {"tokens": names, "token_logprobs": list(log_probs), "top_logprobs": top, "text_offset": _offsets(tokens, tokenizer)}


def _chat_log_probs(completion: Completion, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    best = completion.alternatives or [Alternatives((), ())] * len(completion.tokens)
    return [
        {**_scored(tokenizer.piece(token), log_prob), "top_logprobs": [_scored(*pair) for pair in _named(alternatives, tokenizer)]}
        for token, log_prob, alternatives in zip(completion.tokens, completion.log_probs, best, strict=True)
    ]


def _scored(name: str, log_prob: float) -> dict[str, Any]:
    return {"token": name, "logprob": log_prob, "bytes": list(name.encode())}


def _named(alternatives: Alternatives, tokenizer: Tokenizer) -> list[tuple[str, float]]:
    return [(tokenizer.piece(token), p) for token, p in zip(alternatives.ids, alternatives.log_probs, strict=True)]


def _offsets(tokens: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """Where each token's text begins. Bytes of one character share the place where it begins."""
    offsets, at, run = [], 0, []
    for token in tokens:
        name = tokenizer.piece(token)
        if len(name) == 6 and name.startswith("<0x"):
            offsets.append(at)
            run.append(token)
            continue
        if run:
            at, run = at + len(tokenizer.decode(run)), []
        offsets.append(at)
        at += len(tokenizer.decode([token]))
    return offsets


def stream_chunks(request: _Common, model: Served, chat: bool) -> Callable[..., dict[str, Any]]:
    """A function of (index, text, finish_reason) that makes the chunks of one streamed response."""
    start = head("chatcmpl", "chat.completion.chunk", model) if chat else head("cmpl", "text_completion", model)

    def chunk(index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        content = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {**start, "choices": [{"index": index, **content, "finish_reason": finish_reason, "logprobs": None}]}

    return chunk
