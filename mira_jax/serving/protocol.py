"""Parsing and validation of OpenAI requests, without HTTP or a model.

Reference: https://platform.openai.com/docs/api-reference/completions and .../chat. A field that is unknown or requests an
unsupported feature is refused by name, not ignored.
"""

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from mira_jax.models.decoding import TOP
from mira_jax.models.sampler import Sampling
from mira_jax.serving import fields
from mira_jax.serving.engine import Engine, Job
from mira_jax.trajectories.chat import ChatError
from mira_jax.trajectories.tokenizer import Tokenizer


class RequestError(Exception):
    """A request that cannot be served, with an HTTP status and OpenAI's error object."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None, retry_after: int | None = None):
        # The message may contain names and values of the request, which have no length limit.
        message = message if len(message) <= 500 else message[:500] + " ..."
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


MOST_STOPS = 64
LONGEST_STOP = 1000
"""Maximum length in characters."""


class Limits(msgspec.Struct, frozen=True):
    """Limits of a request. They are checked before any text is tokenized."""

    tokens: int
    """Tokens of a prompt and its completion together."""
    completions: int
    """Completions of all prompts together. Also the limit on the number of prompts."""
    text_bytes: int
    """Bytes in UTF-8. A longer text always has more than `tokens` tokens."""

    @staticmethod
    def of(engine: Engine) -> "Limits":
        pieces = map(engine.tokenizer.piece, range(engine.tokenizer.vocabulary_size))
        return Limits(engine.max_length, engine.queue_limit, engine.max_length * max(len(piece.encode()) for piece in pieces))

    @property
    def body(self) -> int:
        """Maximum bytes of a request: prompts given as ids, at most 8 bytes per id, or one text with every byte escaped."""
        return 8 * self.tokens * self.completions + 6 * self.text_bytes

    @property
    def log_probs(self) -> int:
        """Maximum number of log-probabilities in a response, alternatives included: every prompt echoed with one alternative per
        token, as lm-eval requests."""
        return 2 * self.tokens * self.completions


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """OpenAI pads the chunks by default, against observers of encrypted traffic. This server does not pad."""


class _Common(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Fields of both kinds of request. null means the default, as in OpenAI's API."""

    model: str | None = None
    max_tokens: Tokens | None = None
    temperature: NonNegative | None = None
    """Default 1. 0 selects the most likely token."""
    top_p: Fraction | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    """Sample from this many of the most likely tokens, as in vLLM. 0, -1 and null: from all."""
    n: Count | None = None
    seed: int | None = None
    """The same request with the same seed gives the same completions. Default: a new seed each time."""
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    """Adds `prompt_token_ids` and `token_ids` to each choice, as in vLLM. Chat responses also have `prompt_token_ids` in the
    same place as vLLM."""

    def stops(self) -> tuple[str, ...]:
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if "" in stops:
            raise RequestError("stop: an empty string would end every completion at once", param="stop")
        if len(stops) > MOST_STOPS or any(len(stop) > LONGEST_STOP for stop in stops):
            raise RequestError(f"stop: expected at most {MOST_STOPS} strings of at most {LONGEST_STOP} characters", param="stop")
        return stops

    def refuse_unsupported(self) -> None:
        for name in ("logprobs", "echo", "return_token_ids"):
            asked = getattr(self, name, None)
            if self.stream and asked is not None and asked is not False:
                raise RequestError(f"{name} can't be streamed; leave out stream", param=name)


class CompletionRequest(_Common, kw_only=True):
    """POST /v1/completions."""

    prompt: Any = None
    """A text, a list of token ids, or a list of either. `bos` is prepended to a text. Turn marks in a text are plain characters."""
    logprobs: Top | None = None
    echo: bool | None = None
    best_of: Count | None = None


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: Any
    """A text, or a list of parts {"type": "text", "text": ...}."""


class ChatRequest(_Common, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None


Request = TypeVar("Request", bound=_Common)


def parse(kind: type[Request], body: bytes) -> Request:
    """Raises RequestError if the body is not JSON, or a field is unknown, of the wrong type, or not supported."""
    try:
        tree = msgspec.json.decode(body)
        if isinstance(tree, dict):
            tree = fields.asked(tree, kind.__struct_fields__)
            if isinstance(tree.get("messages"), list):
                tree["messages"] = [_message(message) for message in tree["messages"]]
        request = msgspec.convert(tree, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(str(error)) from None
    except fields.Unsupported as error:
        raise RequestError(f"{error} is not supported by this server; leave it out", param=str(error)) from None
    request.refuse_unsupported()
    return request


def _message(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return fields.asked(tree, ChatMessage.__struct_fields__, fields.IGNORED_IN_MESSAGES, fields.DEFAULTS_IN_MESSAGES)


class Served(msgspec.Struct, frozen=True):
    """The model as described in responses."""

    name: str
    """The model name in requests."""
    fingerprint: str
    """Fingerprint of the weights, in hexadecimal: `mira_jax.training.load.model_fingerprint`."""
    dtype: str
    """Dtype of activations and KV cache."""


def completion_prompts(request: CompletionRequest, limits: Limits, vocabulary_size: int) -> list[str | list[int]]:
    """Reads `prompt` in its four forms. Refuses prompts that are too long before they are tokenized."""
    prompt = request.prompt
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and type(prompt[0]) is int):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise RequestError(PROMPT, param="prompt")
    if len(prompt) * (request.n or 1) > limits.completions:
        wanted = len(prompt) * (request.n or 1)
        raise RequestError(f"{wanted} completions in one request; this server takes {limits.completions}", 413, "prompt")
    for item in prompt:
        if isinstance(item, str):
            _check_text("prompt", [item], limits)
            continue
        if not isinstance(item, list) or not item:
            raise RequestError(PROMPT, param="prompt")
        if len(item) > limits.tokens:
            raise _too_long(f"the prompt has {len(item)}", limits.tokens, "prompt")
        if not all(type(token) is int for token in item):
            raise RequestError(PROMPT, param="prompt")
        worst = min(item) if min(item) < 0 else max(item)
        if not 0 <= worst < vocabulary_size:
            raise RequestError(f"prompt: token id {worst} is not in the vocabulary of {vocabulary_size}", param="prompt")
    return prompt


PROMPT = "prompt: expected a text, a list of token ids, or a non-empty list of either"


def check_messages(messages: Sequence[ChatMessage], limits: Limits) -> None:
    """Raises RequestError if the length of the conversation implies more tokens than the server accepts."""
    if len(messages) > limits.tokens:
        raise _too_long(f"there are {len(messages)} messages", limits.tokens, "messages")
    parts = [part for message in messages for part in (message.content if isinstance(message.content, list) else [message.content])]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    _check_text("messages", [text for text in texts if isinstance(text, str)], limits)


def _check_text(name: str, texts: Sequence[str], limits: Limits) -> None:
    size = sum(len(text) for text in texts)
    if size <= limits.text_bytes:
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if size > limits.text_bytes:
        raise _too_long(f"a text of {size} bytes has more", limits.tokens, name)


def _too_long(found: str, most: int, param: str) -> RequestError:
    message = f"this server's maximum length is {most} tokens, but {found}; shorten the prompt or the completion"
    return RequestError(message, param=param, code="context_length_exceeded")


def chat_prompt(messages: Sequence[ChatMessage], tokenizer: Tokenizer) -> list[int]:
    """Encodes the conversation with the model's chat template, with the start of the answer."""
    if messages[-1].role != "user":
        raise RequestError("messages: the last message must be the user's", param="messages")
    conversation = [
        # `developer` is OpenAI's newer name for `system`. Chat templates do not know it.
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


def completion_jobs(request: CompletionRequest, prompts: Sequence[list[int]], limits: Limits) -> list[Job]:
    """One job per choice, in the order of prompts."""
    n = request.n or 1
    if request.best_of not in (None, n):
        raise RequestError(f"best_of: {request.best_of} is not supported by this server; ask for n and choose", param="best_of")
    max_tokens = 16 if request.max_tokens is None else request.max_tokens
    if max_tokens == 0 and not request.echo:
        raise RequestError("max_tokens: 0 is allowed only with echo", param="max_tokens")
    score = bool(request.echo) and request.logprobs is not None
    jobs = _jobs(request, prompts, n, max_tokens, limits, request.logprobs or 0, score)
    if request.logprobs is not None:
        _check_log_probs(jobs, limits, bool(request.echo))
    return jobs


def chat_jobs(request: ChatRequest, prompt: list[int], limits: Limits) -> list[Job]:
    """One job per choice. Without its own limit, the answer may use all tokens that the prompt leaves."""
    if request.top_logprobs and not request.logprobs:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    asked = [limit for limit in (request.max_completion_tokens, request.max_tokens) if limit is not None]
    max_tokens = asked[0] if asked else max(1, limits.tokens - len(prompt))
    if max_tokens == 0:
        raise RequestError("max_tokens: must be at least 1", param="max_tokens")
    if (request.n or 1) > limits.completions:
        raise RequestError(f"{request.n} completions in one request; this server takes {limits.completions}", 413, "n")
    jobs = _jobs(request, [prompt], request.n or 1, max_tokens, limits, request.top_logprobs or 0, False)
    if request.logprobs:
        _check_log_probs(jobs, limits, echo=False)
    return jobs


def _check_log_probs(jobs: Sequence[Job], limits: Limits, echo: bool) -> None:
    count = sum((job.sampling.max_tokens + echo * len(job.prompt)) * (1 + job.alternatives) for job in jobs)
    if count > limits.log_probs:
        raise RequestError(
            f"logprobs: this request may return {count} log-probabilities; this server returns at most {limits.log_probs} at once; "
            "ask for fewer completions, tokens or alternatives",
            param="logprobs",
        )


def _jobs(
    request: _Common, prompts: Sequence[list[int]], n: int, max_tokens: int, limits: Limits, alternatives: int, score_prompt: bool
) -> list[Job]:
    jobs = []
    seed = secrets.randbits(32) if request.seed is None else request.seed
    stops = request.stops()
    temperature = 1.0 if request.temperature is None else request.temperature
    for index, prompt in enumerate(prompts):
        if len(prompt) + max_tokens > limits.tokens:
            found = f"the prompt has {len(prompt)} and max_tokens is {max_tokens}"
            raise _too_long(found, limits.tokens, "max_tokens" if len(prompt) < limits.tokens else "prompt")
        for choice in range(n):
            # One random stream per prompt and choice. The streams of the first prompt do not depend on the number of prompts.
            stream = index * MOST_CHOICES + choice
            sampling = Sampling(max_tokens, temperature, request.top_p or 1.0, seed, stream, max(request.top_k or 0, 0))
            jobs.append(Job(prompt, sampling, stops, alternatives, score_prompt and choice == 0))
    return jobs
