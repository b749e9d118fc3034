"""Request fields without effect: null, defaults, and fields that never change a completion.

Clients send many of them. A field that requests an unsupported feature is refused by name.
"""

from collections.abc import Collection, Mapping
from typing import Any

IGNORED = frozenset({
    "metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "request_id",
    "safety_identifier", "service_tier", "store", "user",
})  # fmt: skip
"""Fields for billing, storage, caching or routing at a provider. They do not change the completion."""

DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    # OpenAI
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    # vLLM and SGLang
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "echo": (False,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "repetition_penalty": (1,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "use_beam_search": (False,),
}
"""For fields that this server does not implement: the values that request no feature."""

IGNORED_IN_MESSAGES = frozenset({"cache_control", "name", "provider_specific_fields"})
DEFAULTS_IN_MESSAGES: Mapping[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "reasoning": ("",),
    "reasoning_content": ("",),
    "refusal": ("",),
    "tool_calls": ([],),
    # lm-evaluation-harness
    "type": ("text",),
}
"""The same for messages. Clients send assistant messages back as they received them."""


class Unsupported(Exception):
    """A field requests a feature that this server does not support. The argument is the name of the field."""


def asked(
    fields: Mapping[str, Any], known: Collection[str], ignored: Collection[str] = IGNORED, defaults: Mapping[str, tuple] = DEFAULTS
) -> dict[str, Any]:
    """`fields` without those that have no effect. Unknown fields are kept.

    Args:
        known: fields that the server implements. They are removed only if null.

    Raises:
        Unsupported: a field of `defaults` has another value.
    """
    kept = {}
    for name, value in fields.items():
        if value is None or (name in ignored and name not in known):
            continue
        if name in defaults and name not in known:
            if value not in defaults[name]:
                raise Unsupported(name)
            continue
        kept[name] = value
    return kept
