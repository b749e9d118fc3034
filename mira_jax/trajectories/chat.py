"""Chat templates: render a conversation as a prompt, in the same way as transformers."""

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.sandbox

GEMMA = """\
{{- bos_token -}}
{%- set ns = namespace(preface="", turns=messages) -%}
{%- if messages[0]["role"] == "system" -%}
    {%- set text = messages[0]["content"] -%}
    {%- set ns.preface = (text if text is string else text[0]["text"]) + "\\n\\n" -%}
    {%- set ns.turns = messages[1:] -%}
{%- endif -%}
{%- for message in ns.turns -%}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) -%}
        {{- raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") -}}
    {%- endif -%}
    {{- "<start_of_turn>" + ("model" if message["role"] == "assistant" else message["role"]) + "\\n" -}}
    {{- ns.preface if loop.first else "" -}}
    {%- if message["content"] is string -%}
        {{- message["content"] | trim -}}
    {%- elif message["content"] is iterable -%}
        {%- for part in message["content"] -%}
            {%- if part["type"] == "text" -%}
                {{- part["text"] | trim -}}
            {%- elif part["type"] == "image" -%}
                {{- "<start_of_image>" -}}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{- raise_exception("Invalid content type") -}}
    {%- endif -%}
    {{- "<end_of_turn>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<start_of_turn>model\\n" -}}
{%- endif -%}
"""
"""Equivalent to the template that Google publishes with Gemma3's instruction-tuned models."""


class ChatError(Exception):
    """A template does not accept the conversation, or cannot be rendered. The message is meant for the client."""


class ChatTemplate:
    """A compiled template. Rendering has no access to Python's attributes, files or imports."""

    def __init__(self, source: str, tokens: Mapping[str, str]):
        """`tokens`: the values of `bos_token`, `eos_token` and so on in templates. Raises ChatError if `source` is not a template."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _json
        environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.datetime.now().strftime(form)}
        self._tokens = dict(tokens)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ChatError(f"the model's chat template can't be read: {error}") from None

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt for the next turn. Raises ChatError."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, tools=None, documents=None, **self._tokens)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise ChatError(f"the model's chat template does not take these messages: {error}") from None

    def segments(self, messages: Sequence[Mapping[str, Any]], marks: Sequence[str]) -> Iterator[tuple[bool, str]]:
        """Splits the prompt into marks of the template (True) and text (False).

        A mark that is spelled out in a message is text. To tell it apart, a character that occurs in no message is inserted
        into it during rendering.

        Args:
            messages: `content` is a text, or a list of parts, of which those of type text have a `text`.
            marks: the texts of special tokens.
        """
        longest_first = sorted(marks, key=len, reverse=True)
        within = _absent_from(messages)
        whole = re.compile("|".join(re.escape(mark) for mark in longest_first))
        # Two adjacent parts may spell out a mark together, so the first character of every mark is guarded.
        beginning = re.compile("|".join(re.escape(mark[0]) for mark in longest_first))

        def guard(text: str, pattern: re.Pattern[str]) -> str:
            return pattern.sub(lambda found: found[0][0] + within + found[0][1:], text)

        guarded = []
        for message in messages:
            content = message.get("content")
            if isinstance(content, str):
                content = guard(content, whole)
            elif isinstance(content, list):
                pattern = whole if len(content) == 1 else beginning
                content = [{**part, "text": guard(part["text"], pattern)} if "text" in part else part for part in content]
            guarded.append({**message, "content": content})
        prompt, at = self.render(guarded), 0
        for mark in whole.finditer(prompt):
            yield False, prompt[at : mark.start()].replace(within, "")
            yield True, mark[0]
            at = mark.end()
        yield False, prompt[at:].replace(within, "")


def _absent_from(messages: Sequence[Mapping[str, Any]]) -> str:
    """A private-use character that occurs in no message."""
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents for part in (content if isinstance(content, list) else [{"text": content}])]
    text = "".join(str(part.get("text")) for part in parts)
    return next(character for character in map(chr, range(0xF0000, 0x10FFFE)) if character not in text)


def _json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """JSON filter for templates. Unlike Jinja's own filter, it does not escape for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
