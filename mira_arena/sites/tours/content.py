"""Content of the tour agency, drawn from a seed: the offers for each leg of a tour."""

import dataclasses
import functools
from random import Random

from mira_arena.sites.tours import vocabulary

MAX_LEGS = 10
OFFERS = 3
"""Number of offers for a leg."""


@dataclasses.dataclass(frozen=True)
class TourContent:
    seed: int
    legs: tuple[tuple[str, ...], ...]
    """Offers of each leg, in page order. An offer is a place. No two offers of an agency are the same."""
    names: frozenset[str]
    """Names of all offers."""


@functools.lru_cache(maxsize=256)
def make_content(seed: int) -> TourContent:
    random = Random(f"tours {seed}")
    offers = random.sample(vocabulary.PLACES, MAX_LEGS * OFFERS)
    legs = tuple(tuple(offers[leg * OFFERS : (leg + 1) * OFFERS]) for leg in range(MAX_LEGS))
    return TourContent(seed, legs, frozenset(offers))
