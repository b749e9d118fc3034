"""What requests to a model used: tokens and cost."""

import dataclasses
from collections.abc import Mapping

from mira_jax.errors import UserError
from mira_jax.trajectories.summary import RoleUsage


class SpendingLimit(UserError):
    """The requests of a command have cost as much as allowed."""


@dataclasses.dataclass
class Usage:
    """Requests that were answered, and what they used."""

    prompt_price: float = 0.0
    """USD per million prompt tokens."""
    response_price: float = 0.0
    """USD per million response tokens."""
    requests: int = 0
    cached: int = 0
    """Questions answered from the cache. They are not among `requests`, and cost nothing."""
    repaired: int = 0
    """Answers of the wrong form that the model was asked to correct."""
    invalid: int = 0
    """Questions without a valid answer, even after the repair."""
    prompt_tokens: int = 0
    response_tokens: int = 0

    @property
    def cost(self) -> float:
        """In USD, by the tokens that the endpoint reported."""
        return (self.prompt_tokens * self.prompt_price + self.response_tokens * self.response_price) / 1e6

    def add(self, prompt_tokens: int, response_tokens: int) -> None:
        """Counts an answered request."""
        self.requests += 1
        self.prompt_tokens += prompt_tokens
        self.response_tokens += response_tokens

    def refuse_beyond(self, limit: float, key: str) -> None:
        """Raises SpendingLimit if `limit` USD are spent; 0 is no limit. `key`: path of the endpoint in the run's config."""
        if limit and self.cost >= limit:
            raise SpendingLimit(
                f"{key}.max_cost: {self.cost:.4f} USD of {limit:g} are spent ({self}); what is complete is kept, and the same command "
                "continues"
            )

    def record(self) -> RoleUsage:
        """The same figures for a file."""
        return RoleUsage(
            requests=self.requests,
            cached=self.cached,
            repaired=self.repaired,
            invalid=self.invalid,
            prompt_tokens=self.prompt_tokens,
            response_tokens=self.response_tokens,
            cost=self.cost,
        )

    def __str__(self) -> str:
        """One line for people, for example "12 requests, 3 from the cache, 9,000 + 800 tokens, 0.0420 USD"."""
        parts = [f"{self.requests:,} requests"]
        parts += [f"{count:,} {what}" for count, what in ((self.cached, "from the cache"), (self.repaired, "repaired")) if count]
        parts += [f"{self.invalid:,} without a valid answer"] if self.invalid else []
        parts.append(f"{self.prompt_tokens:,} + {self.response_tokens:,} tokens")
        if self.prompt_price or self.response_price:
            parts.append(f"{self.cost:.4f} USD")
        return ", ".join(parts)


def show(usage: Mapping[str, Usage]) -> None:
    """Prints a line for each role that was asked. `usage`: by the path of the role's config."""
    for key, one in usage.items():
        if one.requests or one.cached or one.invalid:
            print(f"{key}: {one}")
