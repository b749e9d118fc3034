"""A role that a chat model plays, such as a judge: it is asked questions, and its answers have a form."""

import asyncio
import dataclasses
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import msgspec

from mira_jax.config import Count, NonNegative
from mira_jax.errors import ConfigError
from mira_jax.files import parse_json
from rollouts.errors import InfraError
from rollouts.llm.answers import Completion
from rollouts.llm.cache import AnswerCache, question_key
from rollouts.llm.endpoint import Endpoint, EndpointConfig, InvalidRequest
from rollouts.llm.usage import Usage

Form = TypeVar("Form", bound=msgspec.Struct)
Messages = Sequence[Mapping[str, Any]]
LONGEST = 100_000
"""Maximum characters of an answer that is read."""
_SHOWN = 200
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class RoleConfig:
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    """The chat model."""
    temperature: NonNegative = 0.0
    """Sampling temperature."""
    max_tokens: Count = 2048
    """Maximum tokens of an answer, with what the model thinks before it."""
    answer_format: Literal["json_schema", "json_object", "text"] = "json_schema"
    """How the endpoint is asked for JSON. json_schema: with the schema of the answer (`response_format` of OpenAI's API, which vLLM and
    SGLang have too). json_object: any JSON object. text: in words only, for endpoints without `response_format`."""
    cache: str = ""
    """File of answers. A question that was asked before, of the same model with the same settings, is answered from it. Several commands
    may share it. Empty: answers are kept only while the command runs."""

    def __post_init__(self) -> None:
        if "temperature" in self.endpoint.body and self.temperature:
            raise ConfigError("temperature", "requests leave it out or set it in $.endpoint.body; set it to 0 here")

    def with_cache(self, default: str) -> Self:
        """The config with this cache unless it names one."""
        return self if self.cache else dataclasses.replace(self, cache=default)


class NoAnswer(InfraError):
    """The model gave no answer of the required form. This says nothing about the policy."""

    part = "model"


class Role:
    """A chat model that answers questions, opened with `async with`. Equal questions are sent once."""

    def __init__(self, config: RoleConfig, key: str):
        """`key`: path of `config` in the run's config, for messages."""
        self.config = config
        self.key = key
        self.endpoint = Endpoint(config.endpoint, f"{key}.endpoint")
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @property
    def usage(self) -> Usage:
        return self.endpoint.usage

    async def __aenter__(self) -> "Role":
        """Raises UserError if the endpoint cannot be reached or the cache not be used."""
        self._cache = AnswerCache(Path(self.config.cache) if self.config.cache else None, Completion)
        try:
            await self.endpoint.__aenter__()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.endpoint.__aexit__()
        self._cache.close()

    async def ask(
        self, messages: Messages, form: type[Form], seed: int = 0, used: Usage | None = None, temperature: float | None = None
    ) -> Form:
        """Asks for a JSON object with the fields of `form`. The model is asked once to correct an answer of another form.

        Args:
            form: a struct with `forbid_unknown_fields` and without defaults, which strict schemas do not allow.
            seed: sampling seed.
            used: what this question used is added to it, with or without an answer. Answers from the cache use nothing.
            temperature: in place of the config's.

        Raises:
            NoAnswer: no answer of this form, or this question is refused although others were not.
            EndpointError: no response after all retries.
            UserError: the endpoint rejects the key, the model or the first request, or the spending limit is reached.
        """
        wanted = answer_schema(form)
        asked = [*messages[:-1], {**messages[-1], "content": _with_form(messages[-1]["content"], wanted)}]
        temperature = self.config.temperature if temperature is None else temperature
        found = await self._chat(asked, form.__name__, wanted, seed, temperature, used)
        try:
            return read_answer(found, form)
        except ValueError as error:
            problem = str(error)
        self.usage.repaired += 1
        correction = f"That cannot be read: {problem}. Answer again, with nothing but the JSON object."
        if 0 < len(found.text) <= LONGEST:
            asked = [*asked, {"role": "assistant", "content": found.text}, {"role": "user", "content": correction}]
        try:
            return read_answer(await self._chat(asked, form.__name__, wanted, seed + 1, temperature, used), form)
        except ValueError as error:
            self.usage.invalid += 1
            raise NoAnswer(f"{self.key}: {self.endpoint.model} gave no valid answer in two tries: {error}") from None

    async def _chat(
        self, messages: Messages, name: str, wanted: Mapping[str, Any], seed: int, temperature: float, used: Usage | None
    ) -> Completion:
        """The answer from the cache or from the model. Raises as `ask` does."""
        fields = self._response_format(name, wanted)
        key = question_key([
            self.config.endpoint.base_url, self.endpoint.model, self.endpoint.card.fingerprint, messages, fields, seed,
            temperature, self.config.max_tokens, self.config.endpoint.body, self.config.endpoint.rename,
        ])  # fmt: skip
        # Equal questions that are asked at the same time wait for the first one.
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._cache.get(key)
            if known is not None:
                self.usage.cached += 1
                return known
            try:
                found = await self.endpoint.chat(
                    messages, max_tokens=self.config.max_tokens, temperature=temperature, seed=seed, fields=fields
                )
            except InvalidRequest as error:
                self.usage.invalid += 1
                raise NoAnswer(f"{self.key}: {self.endpoint.model} refuses the question: {error}") from None
            self._cache.put(key, found)
            if used is not None:
                used.add(found.prompt_tokens, found.tokens)
            return found

    def _response_format(self, name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        if self.config.answer_format == "json_schema":
            return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": wanted, "strict": True}}}
        return {"response_format": {"type": "json_object"}} if self.config.answer_format == "json_object" else {}


def answer_schema(form: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a struct. Its root is an object, as OpenAI's API demands, not a reference."""
    tree = msgspec.json.schema(form)
    definitions = tree.pop("$defs")
    root = definitions.pop(tree.pop("$ref").rpartition("/")[2])
    return {**root, "$defs": definitions} if definitions else root


def read_answer(found: Completion, form: type[Form]) -> Form:
    """Reads the JSON object in an answer: all of it, or what is left without thoughts, words around it and a code block.

    Raises:
        ValueError: no object, or not of this form. The message is about the answer's form and safe to show.
    """
    if len(found.text) > LONGEST:
        raise ValueError(f"it has {len(found.text):,} characters, more than {LONGEST:,}")
    text = found.text if "<think>" in found.text else found.text.rpartition("</think>")[2]
    text = _THOUGHTS.sub("", text)
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        cut = "; it was cut at max_tokens" if found.cut else ""
        raise ValueError(f"it has no JSON object{cut}: {text[:_SHOWN]!r}")
    try:
        tree = parse_json(text[start : end + 1])
    except ValueError as error:
        raise ValueError(f"it is not valid JSON ({str(error)[:_SHOWN]})") from None
    try:
        return msgspec.convert(tree, form)
    except msgspec.ValidationError as error:
        raise ValueError(f"it has another form ({str(error)[:_SHOWN]})") from None


def _with_form(content: Any, wanted: Mapping[str, Any]) -> Any:
    """The question with the schema of its answer in words, which models need that are not constrained by it."""
    words = f"\n\nAnswer with one JSON object of this schema and nothing else:\n{msgspec.json.encode(wanted).decode()}"
    return content + words if isinstance(content, str) else [*content, {"type": "text", "text": words}]
