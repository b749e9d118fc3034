"""The structure of ATIF files: Harbor's Agent Trajectory Interchange Format, versions 1.0 to 1.8.

The classes mirror the pydantic models of the package `harbor` 0.26.0 (Apache-2.0), `harbor.models.trajectories`: the same fields, and
unknown fields are refused except in `extra`. ImageSource and AudioSource are one class here. Rules that concern several fields are
checked by the readers.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

VERSION = "ATIF-v1.8"
Version = Literal[
    "ATIF-v1.0", "ATIF-v1.1", "ATIF-v1.2", "ATIF-v1.3", "ATIF-v1.4", "ATIF-v1.5", "ATIF-v1.6", "ATIF-v1.7", "ATIF-v1.8"
]  # fmt: skip
Extra = dict[str, Any] | None


class _Object(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A JSON object. Absent fields are left out."""


class Source(_Object, kw_only=True):
    """Where an image or a sound is."""

    media_type: str
    path: str
    duration_sec: float | None = None


class Part(_Object, kw_only=True):
    type: Literal["text", "image", "audio"]
    text: str | None = None
    source: Source | None = None


class ToolCall(_Object, kw_only=True):
    tool_call_id: str
    function_name: str
    arguments: dict[str, Any]
    extra: Extra = None


class Result(_Object, kw_only=True):
    source_call_id: str | None = None
    content: str | list[Part] | None = None
    subagent_trajectory_ref: list[Any] | None = None
    extra: Extra = None


class Observation(_Object, kw_only=True):
    results: list[Result]


class Metrics(_Object, kw_only=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None
    prompt_token_ids: list[int] | None = None
    completion_token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    extra: Extra = None


class Step(_Object, kw_only=True):
    step_id: Annotated[int, Meta(ge=1)]
    source: Literal["system", "user", "agent"]
    message: str | list[Part]
    timestamp: str | None = None
    model_name: str | None = None
    reasoning_effort: str | float | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    observation: Observation | None = None
    metrics: Metrics | None = None
    is_copied_context: bool | None = None
    llm_call_count: Annotated[int, Meta(ge=0)] | None = None
    extra: Extra = None


class Agent(_Object, kw_only=True):
    name: str
    version: str
    model_name: str | None = None
    tool_definitions: list[dict[str, Any]] | None = None
    extra: Extra = None


class FinalMetrics(_Object, kw_only=True):
    total_prompt_tokens: int | None = None
    total_completion_tokens: int | None = None
    total_cached_tokens: int | None = None
    total_cost_usd: float | None = None
    total_steps: Annotated[int, Meta(ge=0)] | None = None
    extra: Extra = None


class Document(_Object, kw_only=True):
    """A file. `Trajectory` in ATIF."""

    schema_version: Version = field(default_factory=lambda: VERSION)
    """A factory, because plain defaults are not written."""
    session_id: str | None = None
    trajectory_id: str | None = None
    agent: Agent
    steps: Annotated[list[Step], Meta(min_length=1)]
    notes: str | None = None
    final_metrics: FinalMetrics | None = None
    continued_trajectory_ref: str | None = None
    extra: Extra = None
    subagent_trajectories: list[Any] | None = None


def text_of(content: str | list[Part] | None) -> str:
    """The text of a message or a result, without images and sounds."""
    if isinstance(content, list):
        return "\n".join(part.text for part in content if part.text is not None)
    return content or ""
