"""State of the tour agency in one episode: the legs booked so far. A booking is final."""

import functools
import sqlite3
from collections.abc import Mapping
from typing import Any

from mira_arena.sites.state import Refused, State, make_image
from mira_arena.sites.tours.content import MAX_LEGS, TourContent, make_content

_SCHEMA = """
CREATE TABLE booking (leg INTEGER PRIMARY KEY, offer TEXT);
CREATE TABLE visit (seed INTEGER, legs INTEGER, notice TEXT);
"""


@functools.lru_cache(maxsize=32)
def image(seed: int) -> bytes:
    """Serialised database of the agency with the content of `seed`."""
    return make_image(_SCHEMA, lambda database: _fill(database, seed))


def _fill(database: sqlite3.Connection, seed: int) -> None:
    database.execute("INSERT INTO visit VALUES (?, ?, '')", (seed, MAX_LEGS))


class TourState(State):
    """A tour, booked one leg after the other."""

    def __init__(self, seed: int, setup: Mapping[str, Any] | None = None):
        """`setup` may contain `legs`, the number of legs of the tour."""
        super().__init__(image(seed))
        self._do("UPDATE visit SET legs = ?", int((setup or {}).get("legs", MAX_LEGS)))

    @property
    def content(self) -> TourContent:
        return make_content(self.visit["seed"])

    def legs(self) -> int:
        """Number of legs of the tour."""
        return self.visit["legs"]

    def booked(self) -> list[str]:
        """The offers booked so far, in the order of the legs."""
        return [row["offer"] for row in self._all("SELECT offer FROM booking ORDER BY leg")]

    def offers(self) -> tuple[str, ...]:
        """Offers for the next leg. Empty if the tour is complete."""
        leg = len(self.booked())
        return self.content.legs[leg] if leg < self.legs() else ()

    def book(self, leg: int, offer: str) -> None:
        """Books an offer for the next leg, whose number, from 1, is `leg`."""
        booked = self.booked()
        if leg <= len(booked):
            raise Refused(f"leg {leg} is booked already; a booking is final")
        if leg != len(booked) + 1 or offer not in self.offers():
            raise Refused("please choose one of the offers for the next leg")
        self._do("INSERT INTO booking VALUES (?, ?)", leg, offer)

    # For evaluation and milestones

    def changes(self) -> list[str]:
        """Lists the bookings, one line each."""
        return [f"leg {leg} {offer}" for leg, offer in enumerate(self.booked(), 1)]

    def snapshot(self) -> dict[str, Any]:
        return {"booked": self.booked()}
