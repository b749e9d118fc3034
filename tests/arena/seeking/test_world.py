"""The world of seeking: drawn from a seed, stated by its pages, found by its search."""

import math
import random

import pytest

from mira_arena.seeking.pages import NOTICE, Page, make_pages, page_slug, stating
from mira_arena.seeking.relations import REGISTER, RELATIONS, SECOND
from mira_arena.seeking.search import HEAD_WEIGHT, Index, make_index
from mira_arena.seeking.world import SIZES, make_world
from mira_jax.trajectories.tasks import SPLITS
from tests.arena.seeking.reading import read_world


def test_a_world_follows_from_its_split_and_number():
    world = make_world("train", 3)
    assert make_world.__wrapped__("train", 3).entities == world.entities
    assert make_pages.__wrapped__("train", 3) == make_pages("train", 3)
    assert {kind: len(found) for kind, found in world.by_kind.items()} == SIZES
    other = make_world("train", 4)
    shared = [name for name in world.entities if name in other.entities]
    assert len(shared) < len(world.entities) / 4
    assert all(world.entities[name].facts != other.entities[name].facts for name in shared)


def test_no_two_splits_have_a_name_in_common():
    names = []
    for split in SPLITS:
        entities = make_world(split, 0).entities.values()
        names.append({entity.name for entity in entities} | {entity.alias for entity in entities if entity.alias})
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]


def test_facts_have_the_types_of_their_relations():
    world = make_world("test", 0)
    for entity in world.entities.values():
        for name, values in entity.facts.items():
            relation = RELATIONS[name]
            assert relation.subject == entity.kind and (relation.many or len(values) == 1)
            for value in values:
                assert value.isdigit() if relation.literal else world.entities[value].kind == relation.object
                if relation.inverse:
                    assert entity.name in world.values(value, relation.inverse)
        lacking = {it.name for it in RELATIONS.values() if it.subject == entity.kind} - entity.facts.keys()
        assert all(RELATIONS[name].optional or RELATIONS[name].many for name in lacking)


def test_the_pages_alone_state_every_fact_of_the_world_if_the_later_page_is_right():
    world, read = make_world("validation", 0), read_world("validation", 0)
    assert read.entities.keys() == world.entities.keys()
    for name, entity in world.entities.items():
        assert read.entities[name].facts == entity.facts, name
        assert (read.entities[name].kind, read.entities[name].alias) == (entity.kind, entity.alias)


def test_some_notices_are_right_and_some_are_not():
    world, pages = make_world("train", 0), make_pages("train", 0)
    disputed = [entity for entity in world.entities.values() if entity.dispute]
    corrected = [entity for entity in disputed if entity.dispute.corrected]
    assert 0.3 < len(corrected) / len(disputed) < 0.7 and len(disputed) > 1000
    for entity in disputed:
        relation = RELATIONS[entity.dispute.relation]
        notice, page = pages[page_slug(entity.name, NOTICE)], pages[page_slug(entity.name, relation.page)]
        assert (notice.dated > page.dated) == entity.dispute.corrected and notice.dated != page.dated
        assert stating(world, entity.name, relation.name) == ((notice if entity.dispute.corrected else page).slug,)


def test_either_page_of_an_inverse_pair_states_it():
    world = make_world("train", 0)
    work = world.by_kind["work"][0].name
    (author,) = world.values(work, "author")
    assert stating(world, work, "author") == (page_slug(work, REGISTER), page_slug(author, "biography"))


@pytest.mark.parametrize("split", SPLITS)
def test_the_name_of_an_entity_finds_all_of_its_pages_and_its_alias_the_first(split):
    world, index = make_world(split, 0), make_index(split, 0)
    for entity in random.Random(0).sample(list(world.entities.values()), 200):
        kinds = (REGISTER, SECOND[entity.kind], *([NOTICE] if entity.dispute else []))
        assert {page_slug(entity.name, kind) for kind in kinds} <= set(index.search(entity.name))
        assert not entity.alias or page_slug(entity.name, REGISTER) in index.search(entity.alias)


def page(slug, *sentences):
    return Page(slug, slug, 1970, "", sentences)


def test_search_ranks_by_bm25():
    pages = [
        page("red", "red lamp lamp"),
        page("lamp", "a blue door"),
        page("door", "red red red red red"),
        page("oak", "x"),
        page("elm", "y"),
    ]

    def tokens(it):
        return [
            word for text, weight in ((it.title, HEAD_WEIGHT), (" ".join(it.sentences), 1.0)) for word in text.split() for _ in [weight]
        ]

    def bm25(it, query):
        """SQLite's FTS5, equation in section 5.1.1: weighted frequencies, k1 1.2, b 0.75, lengths of all columns together."""
        mean, total = sum(len(tokens(other)) for other in pages) / len(pages), 0.0
        for word in query.split():
            holding = sum(word in tokens(other) for other in pages)
            idf = max(math.log((len(pages) - holding + 0.5) / (holding + 0.5)), 1e-6)
            often = HEAD_WEIGHT * it.title.split().count(word) + " ".join(it.sentences).split().count(word)
            total += idf * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(tokens(it)) / mean))
        return total

    index = Index(pages)
    for query in ("lamp", "red lamp", "door", "red door", "blue oak"):
        scores = {it.slug: bm25(it, query) for it in pages if bm25(it, query) > 0}
        assert index.search(query) == sorted(scores, key=lambda slug: -scores[slug]), query


def test_a_query_is_words_never_operators():
    index = Index([page("red", "red lamp"), page("blue", "blue NEAR lamp")])
    assert index.search('"') == index.search("") == index.search("* ^ ( ) : - + {}") == []
    assert index.search('lamp" OR "nothing') == ["red", "blue"]
    assert index.search("near(lamp") == ["blue", "red"]
    assert index.search("head : red") == ["red"]
    assert index.search("re*") == []
    assert index.search("RED \x00 lämp") == ["red", "blue"]
    assert index.search("lamp " * 100_000) == ["red", "blue"]
    assert index.search("of the") == []
