"""Asks an endpoint one short question, to find out whether it can be used. For `mira preflight`."""

import dataclasses
from collections.abc import Awaitable, Callable

import msgspec

from mira_jax.errors import ConfigError, UserError
from mira_jax.needs import Needs
from rollouts.errors import EndpointError
from rollouts.llm.endpoint import Endpoint, EndpointConfig
from rollouts.llm.role import NoAnswer, Role, RoleConfig

SECONDS = 20.0
"""Maximum seconds of a request."""


def quick(config: EndpointConfig) -> EndpointConfig:
    """The same endpoint without retries and with a short timeout."""
    return dataclasses.replace(config, retries=0, timeout=min(config.timeout, SECONDS), requests_per_minute=0.0)


async def ask_completion(endpoint: Endpoint, prompt: str | list[int]) -> str:
    """Requests one token from an open endpoint. Returns a description of the model. Raises UserError."""
    return await _ask(endpoint, lambda: endpoint.complete(prompt, max_tokens=1, temperature=0.0, seed=0))


async def ask_chat(config: EndpointConfig, key: str) -> str:
    """Opens an endpoint and requests a short answer. `key`: path of `config` in the run's config. Raises UserError."""
    messages = [{"role": "user", "content": "Answer with one word: ready."}]
    async with Endpoint(quick(config), key) as endpoint:
        return await _ask(endpoint, lambda: endpoint.chat(messages, max_tokens=16, temperature=0.0, seed=0))


class Ready(msgspec.Struct, forbid_unknown_fields=True):
    ready: bool


def role_needs(key: str, config: RoleConfig, found: Needs) -> None:
    """Adds what a role needs: its key, and a model that answers in the form of its questions. `key`: path of `config`."""
    found.variable(f"{key}.endpoint.api_key_env", config.endpoint.api_key_env)
    found.ask(f"{key}.endpoint", lambda _: ask_role(config, key), config)


async def ask_role(config: RoleConfig, key: str) -> str:
    """Opens a role and asks a question, without its cache. Returns a description of the model. Raises UserError."""
    asked = dataclasses.replace(config, endpoint=quick(config.endpoint), cache="")
    async with Role(asked, key) as role:
        return await _ask(role.endpoint, lambda: role.ask([{"role": "user", "content": "Are you ready?"}], Ready))


async def _ask(endpoint: Endpoint, request: Callable[[], Awaitable[object]]) -> str:
    config, key = endpoint.config, endpoint.key
    try:
        await request()
    except (EndpointError, NoAnswer, UserError) as error:
        listed = ", ".join(endpoint.listed)
        if config.model and endpoint.listed and config.model not in endpoint.listed:
            raise ConfigError(f"{key}.model", f"{config.model!r} does not answer ({error}); the endpoint lists {listed}") from None
        raise ConfigError(key, str(error)) from None
    length = f", at most {endpoint.card.max_length} tokens" if endpoint.card.max_length else ""
    return f"{config.base_url}: {endpoint.model} answers{length}"
