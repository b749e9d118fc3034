"""The snapshot of a world is that of its states, and is taken again only when one of them changes."""

from mira_arena.sites.registry import APPLICATIONS
from mira_arena.sites.world import World


def test_a_snapshot_is_taken_again_when_the_state_changes():
    world = World(1)
    first = world.snapshot(APPLICATIONS)
    assert world.snapshot(APPLICATIONS) == first == {name: world[name].snapshot() for name in APPLICATIONS}
    assert world.snapshot(["shop"])["shop"] is first["shop"]
    product = world["shop"]._row("SELECT name FROM product LIMIT 1")["name"]
    world["shop"].add_review(product, "5", "good")
    assert world.snapshot(APPLICATIONS) == {name: world[name].snapshot() for name in APPLICATIONS} != first
    assert world.snapshot(["forum"])["forum"] is first["forum"]
    assert world.copy().snapshot(APPLICATIONS) == world.snapshot(APPLICATIONS)
    world.close()
