"""Parses the responses of an endpoint: models, completions and errors. No HTTP."""

import dataclasses
import email.utils
import math
import time
from collections.abc import Callable
from typing import Any

import httpx


@dataclasses.dataclass(frozen=True)
class Card:
    """A model as the endpoint lists it. OpenAI's own list has only the name."""

    name: str
    max_length: int | None = None
    """Maximum tokens of prompt and completion together: `max_model_len` in the lists of vLLM, SGLang and mira_jax.serve."""
    fingerprint: str = ""
    """Fingerprint of the weights, reported by mira_jax.serve."""


@dataclasses.dataclass(frozen=True)
class Completion:
    text: str
    log_prob: float | None
    """Sum of the reported log-probabilities in nats, including the end token. None if none are reported."""
    prompt_tokens: int
    tokens: int
    cut: bool = False
    """Whether the completion was cut at `max_tokens`."""
    prompt_token_ids: tuple[int, ...] | None = None
    """Token ids of the prompt as the model read it. This field and those below are None if the endpoint does not return them."""
    token_ids: tuple[int, ...] | None = None
    """The sampled tokens, including the end token."""
    log_probs: tuple[float, ...] | None = None
    """One per token of `token_ids`, in nats, as reported in `token_logprobs`."""
    sampling_log_probs: tuple[float, ...] | None = None
    """One per token, under the distribution that it was sampled from: `sampling_logprobs` of mira_jax.serve."""
    fingerprint: str = ""
    """`system_fingerprint`."""
    reasoning: str = ""
    """What a chat model thought before its answer: `reasoning_content` (vLLM, DeepSeek) or `reasoning` (OpenRouter, newer vLLM)."""


def read_cards(response: httpx.Response) -> list[Card]:
    """Parses a list of models. Raises ValueError, KeyError or TypeError if it is malformed."""
    cards = []
    for model in response.json()["data"]:
        longest, fingerprint = model.get("max_model_len"), model.get("fingerprint")
        cards.append(
            Card(
                str(model["id"]),
                longest if type(longest) is int and longest > 0 else None,
                fingerprint if isinstance(fingerprint, str) else "",
            )
        )
    return cards


def completion(response: httpx.Response) -> Completion:
    """Parses a response of /completions. Raises ValueError."""
    return _read(response, lambda choice: choice["text"])


def answer(response: httpx.Response) -> Completion:
    """Parses a response of /chat/completions. A model that only thought, called a tool or refused has the content null: its text is
    empty. Raises ValueError."""
    found = _read(response, lambda choice: _content(choice["message"]))
    message = response.json()["choices"][0]["message"]
    thoughts = next((text for key in ("reasoning_content", "reasoning") if isinstance(text := message.get(key), str)), "")
    return dataclasses.replace(found, reasoning=_encodable(thoughts))


def _content(message: dict[str, Any]) -> str:
    """Some servers send a list of parts."""
    content = message["content"]
    if content is None:
        return ""
    return "".join(part["text"] for part in content if part.get("type") == "text") if isinstance(content, list) else content


def _encodable(text: str) -> str:
    """JSON can contain an unpaired surrogate, which can't be encoded as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def echoed(response: httpx.Response) -> list[list[float | None]]:
    """Parses a response of /completions with `echo`: for each prompt, the log-probability of each of its tokens. Raises ValueError."""
    try:
        choices = sorted(response.json()["choices"], key=lambda choice: choice["index"])
        lists = [choice["logprobs"]["token_logprobs"] for choice in choices]
        return [[None if value is None else float(value) for value in values] for values in lists]
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} {error}: no log-probabilities of the prompt in {response.text[:200]!r}") from None


def _read(response: httpx.Response, text_of: Callable[[Any], Any]) -> Completion:
    """Raises ValueError."""
    try:
        tree = response.json()
        choice = tree["choices"][0]
        text = text_of(choice)
        if not isinstance(text, str):
            raise TypeError("text is not a string")
        lists = choice.get("logprobs") or {}
        reported = lists.get("token_logprobs")
        log_probs = None if reported is None else [float(value) for value in reported if value is not None]
        usage = tree.get("usage") or {}
        tokens = int(usage.get("completion_tokens") or (len(log_probs) if log_probs else 0))
        # vLLM puts the prompt's ids into each choice of a completion, but into the top level of a chat response.
        prompt_ids = _ids(choice.get("prompt_token_ids") or tree.get("prompt_token_ids"))
        ids = _ids(choice.get("token_ids"))
        return Completion(
            text=_encodable(text),
            log_prob=sum(log_probs) if log_probs and all(map(math.isfinite, log_probs)) else None,
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            tokens=tokens,
            cut=choice.get("finish_reason") == "length",
            prompt_token_ids=prompt_ids,
            token_ids=ids,
            log_probs=_floats(reported, ids),
            sampling_log_probs=_floats(lists.get("sampling_logprobs"), ids),
            fingerprint=str(tree.get("system_fingerprint") or ""),
        )
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} {error} in {response.text!r}") from None


def _ids(value: Any) -> tuple[int, ...] | None:
    if not value:
        return None
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise TypeError("token ids are not a list of integers")
    return tuple(value)


def _floats(value: Any, ids: tuple[int, ...] | None) -> tuple[float, ...] | None:
    """Returns one log-probability for each of `ids`, or None."""
    if not isinstance(value, list) or ids is None or len(value) != len(ids) or None in value:
        return None
    numbers = tuple(map(float, value))
    return numbers if all(map(math.isfinite, numbers)) else None


def failure(response: httpx.Response) -> str:
    """Returns the message of an error response at full length. Its content is untrusted."""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = response.text
    return f"HTTP {response.status_code}: {message}"


async def read_limited(response: httpx.Response, most: int) -> httpx.Response:
    """Reads a streamed response, with the headers that callers use. Raises ValueError if it is longer than `most` bytes."""
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > most:
            raise ValueError(f"a response of more than {most >> 20} MiB")
    kept = {name: response.headers[name] for name in ("retry-after", "content-type") if name in response.headers}
    return httpx.Response(response.status_code, headers=kept, content=b"".join(parts))


def retry_after(response: httpx.Response) -> float:
    """Parses the Retry-After header into seconds, at most 120. 0 if the header is absent or invalid."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), 120.0) if not math.isnan(seconds) else 0.0
