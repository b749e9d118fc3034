"""Builds OpenAI responses, without HTTP or a model.

Reference: https://platform.openai.com/docs/api-reference/completions and .../chat.
"""

import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from mira_jax.serving.engine import Alternatives, Generation, Job
from mira_jax.serving.protocol import ChatRequest, CompletionRequest, Served
from mira_jax.trajectories.tokenizer import Tokenizer

BYTE = re.compile("<0x([0-9A-F]{2})>")
"""The name of a token that represents a single byte."""


def completion_response(
    request: CompletionRequest, model: Served, prompts: Sequence[str | list[int]], jobs: Sequence[Job],
    completions: Sequence[Generation], tokenizer: Tokenizer,
) -> dict[str, Any]:  # fmt: skip
    """`prompts`: as given by the client."""
    n = request.n or 1
    choices = []
    for index, (job, completion) in enumerate(zip(jobs, completions, strict=True)):
        scored = completions[index - index % n]
        text = completion.text
        tokens, log_probs, best = completion.tokens, completion.log_probs, completion.alternatives
        if request.echo:
            prompt = prompts[index // n]
            text = (prompt if isinstance(prompt, str) else tokenizer.decode(prompt)) + text
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
    return {**head("cmpl", "text_completion", model), "choices": choices, "usage": usage([job.prompt for job in jobs[::n]], completions)}


def chat_response(
    request: ChatRequest, model: Served, prompt: list[int], completions: Sequence[Generation], tokenizer: Tokenizer
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
    """The fields at the start of every response."""
    id = f"{prefix}-{uuid.uuid4().hex}"
    return {"id": id, "object": kind, "created": int(time.time()), "model": model.name, "system_fingerprint": model.fingerprint}


def usage(prompts: Sequence[Sequence[int]], completions: Sequence[Generation]) -> dict[str, int]:
    """Token counts. Each prompt counts once, regardless of its number of completions. End tokens count."""
    read, drawn = sum(map(len, prompts)), sum(len(completion.tokens) for completion in completions)
    return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}


def _log_probs(
    tokens: Sequence[int], log_probs: Sequence[float | None], best: Sequence[Alternatives | None] | None, tokenizer: Tokenizer
) -> dict[str, Any]:
    """OpenAI's four parallel lists. Offsets count characters of the text. Marks have length 0."""
    names = [tokenizer.piece(token) for token in tokens]
    top = None
    if best is not None:
        top = [None if alternatives is None else dict(_named(alternatives, tokenizer)) for alternatives in best]
        # Always includes the drawn token, as in OpenAI's API, even if it is not among the most likely.
        for alternatives, name, log_prob in zip(top, names, log_probs, strict=True):
            if alternatives is not None:
                alternatives.setdefault(name, log_prob)
    return {"tokens": names, "token_logprobs": list(log_probs), "top_logprobs": top, "text_offset": _offsets(tokens, tokenizer)}


def _chat_log_probs(completion: Generation, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    best = completion.alternatives or [Alternatives((), ())] * len(completion.tokens)
    return [
        {
            **_scored(token, log_prob, tokenizer),
            "top_logprobs": [_scored(*pair, tokenizer) for pair in zip(alternatives.ids, alternatives.log_probs, strict=True)],
        }
        for token, log_prob, alternatives in zip(completion.tokens, completion.log_probs, best, strict=True)
    ]


def _scored(token: int, log_prob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    content = token_bytes(token, tokenizer)
    return {"token": tokenizer.piece(token), "logprob": log_prob, "bytes": None if content is None else list(content)}


def token_bytes(token: int, tokenizer: Tokenizer) -> bytes | None:
    """The UTF-8 bytes that a token adds to the text, which may be part of a character. None for marks, which add nothing."""
    if byte := BYTE.fullmatch(tokenizer.piece(token)):
        return bytes([int(byte[1], 16)])
    return tokenizer.decode([token]).encode() or None


def _named(alternatives: Alternatives, tokenizer: Tokenizer) -> list[tuple[str, float]]:
    return [(tokenizer.piece(token), p) for token, p in zip(alternatives.ids, alternatives.log_probs, strict=True)]


def _offsets(tokens: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The character offset of each token's text. All bytes of one character have the offset of the character."""
    offsets, at, run = [], 0, []
    for token in tokens:
        if BYTE.fullmatch(tokenizer.piece(token)):
            offsets.append(at)
            run.append(token)
            continue
        if run:
            at, run = at + len(tokenizer.decode(run)), []
        offsets.append(at)
        at += len(tokenizer.decode([token]))
    return offsets


def stream_chunks(model: Served, chat: bool) -> Callable[..., dict[str, Any]]:
    """Returns a function of (index, text, finish_reason) that builds the chunks of one streamed response."""
    start = head("chatcmpl", "chat.completion.chunk", model) if chat else head("cmpl", "text_completion", model)

    def chunk(index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        content = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {**start, "choices": [{"index": index, **content, "finish_reason": finish_reason, "logprobs": None}]}

    return chunk
