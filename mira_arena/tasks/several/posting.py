"""Facts from one site, posted on the forum."""

from random import Random

from mira_arena.sites.atlas import vocabulary as atlas_vocabulary
from mira_arena.sites.atlas.content import AtlasContent
from mira_arena.sites.code.content import CodeContent
from mira_arena.sites.forum import facts
from mira_arena.sites.forum.content import ForumContent
from mira_arena.sites.paths import slug
from mira_arena.sites.shop.content import ShopContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.atlas.milestones import read
from mira_arena.tasks.atlas.moves import LINK
from mira_arena.tasks.atlas.moves import find as find_article
from mira_arena.tasks.atlas.targets import targets as atlas_targets
from mira_arena.tasks.code.milestones import on_project, page
from mira_arena.tasks.code.moves import open_project
from mira_arena.tasks.code.targets import code_targets
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.forum.milestones import did, did_all
from mira_arena.tasks.forum.milestones import opened as opened_thread
from mira_arena.tasks.forum.moves import MORE, fill_in
from mira_arena.tasks.forum.moves import find as find_thread
from mira_arena.tasks.forum.targets import forum_targets
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.shop.milestones import opened, product_page
from mira_arena.tasks.shop.moves import open_product
from mira_arena.tasks.shop.targets import shop_targets
from mira_arena.tasks.shop_admin.targets import admin_targets
from mira_arena.tasks.templates import Draft, Template

_REVIEW_TITLES = ("feedback on a {product}", "before you buy a {product}", "what people say of a {product}")
_SALE_TITLES = ("a better price for a {product}", "{product} on sale", "now is the time for a {product}")
_POST = Move("click", "post thread", habit="stops_early")


def _to_forum(note: str) -> Move:
    """Switches to the forum's tab, the second one."""
    return Move("switch", argument="1", note=note)


def post_review(random: Random, shop: ShopContent, forum: ForumContent) -> Draft:
    product, community = random.choice(shop.products), random.choice(forum.communities).name
    review, title = random.choice(product.reviews), random.choice(_REVIEW_TITLES).format(product=product.name)
    changes = {facts.posted(title, community): review.text}
    return Draft(
        values={"product": product.name, "stars": review.stars, "title": title, "community": community},
        evaluation=evaluation([*shop_targets(shop), *admin_targets([]), *forum_targets(changes)]),
        milestones=(
            opened(product.name), done.on_page("open the reviews", product_page(product.name) + "/reviews"),
            done.on_page("open the form", "__FORUM__/new"), did_all(f'post "{title}"', changes),
        ),
        moves=(
            Move("search", "search", product.name), Move("open", product.name), Move("click", "reviews"),
            _to_forum(rf"{review.stars} stars\s+(.+)"), *fill_in(community, title, review.text), _POST, EXIT,
        ),
    )  # fmt: skip


def announce_release(random: Random, code: CodeContent, forum: ForumContent) -> Draft:
    project, community = random.choice(code.with_role("guest")), random.choice(forum.moderated).name
    title, (tag, _) = f"new release of {project.name}", project.releases[-1]
    posted = {facts.posted(title, community): tag}
    changes = posted | {f'sticky "{title}"': facts.HERE}
    return Draft(
        values={"project": project.name, "title": title, "community": community},
        evaluation=evaluation([*code_targets(), *forum_targets(changes)]),
        milestones=(
            on_project(project), done.on_page("open the releases", page(project, "releases")),
            done.on_page("open the form", "__FORUM__/new"), did(f'post "{title}"', posted), did_all("make it sticky", changes),
        ),
        moves=(
            open_project(project), Move("click", "releases"), _to_forum(r"(v\d+\.\d+)"), *fill_in(community, title, tag), _POST,
            MORE, Move("click", "make sticky", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def announce_sale(random: Random, shop: ShopContent, forum: ForumContent) -> Draft | None:
    product, community = random.choice(shop.products), random.choice(forum.communities).name
    title, price = random.choice(_SALE_TITLES).format(product=product.name), random.randrange(3, 90)
    if price >= product.price:
        return None
    text, priced = f"{price} instead of {product.price}", f"{product.name} price {price}"
    changes = {facts.posted(title, community): text}
    return Draft(
        values={"product": product.name, "price": price, "title": title, "community": community},
        evaluation=evaluation([*shop_targets(shop), *admin_targets([priced]), *forum_targets(changes)]),
        milestones=(
            done.on_page("open the products", "__SHOP_ADMIN__/products"),
            done.on_page(f'open "{product.name}"', f"__SHOP_ADMIN__/products/{slug(product.name)}"),
            done.exactly("save the price", "shop", "changes", [priced]),
            done.on_page("open the form", "__FORUM__/new"), did_all(f'post "{title}"', changes),
        ),
        moves=(
            Move("click", "products"), Move("search", "search", product.name), open_product(product.name),
            Move("type", "price", str(price), note=r'price[^$]*?value="(\d+)"'), Move("click", "save product", habit="stops_early"),
            _to_forum(""), *fill_in(community, title, text), _POST, EXIT,
        ),
    )  # fmt: skip


def comment_birth_year(random: Random, atlas: AtlasContent, forum: ForumContent) -> Draft | None:
    town, thread = random.choice(atlas.towns), random.choice(forum.threads)
    mayor = next(person for person in atlas.mayors if person.name == town.mayor)
    year = str(mayor.born)
    changes = {facts.commented(thread.title, year): facts.HERE}
    return Draft(
        values={"town": town.name, "title": thread.title},
        evaluation=evaluation([*atlas_targets(atlas), *forum_targets(changes)]),
        milestones=(read(town.name), read(mayor.name), opened_thread(thread), did_all(f'comment "{year}"', changes)),
        moves=(
            *find_article(town.name, careful=True), Move("click", mayor.name), _to_forum(r"born\s+(\d+)"), *find_thread(thread.title),
            Move("type", "your comment", year), Move("click", "post comment", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def message_founder(random: Random, atlas: AtlasContent, forum: ForumContent) -> Draft | None:
    """In half of the instances the museum is not in the encyclopedia. Then the correct result is to report this."""
    known, name = random.random() < 0.5, random.choice(forum.correspondents)
    founders = {museum.name: museum.founder for museum in atlas.museums}
    museum = random.choice([*founders] if known else [f"{topic} museum" for topic in atlas_vocabulary.TOPICS])
    if not known and museum in founders:
        return None
    text = founders.get(museum, "")
    changes = {facts.sent(name, text): facts.HERE} if known else {}
    steps = (
        (read(museum), done.on_page("open the inbox", "__FORUM__/messages"), did_all(f'send "{text}"', changes))
        if known
        else (done.on_query(f'search for "{museum}"', "__WIKI__/search", q=museum), done.answered('answer "N/A"', "N/A"))
    )
    return Draft(
        values={"museum": museum, "name": name},
        evaluation=evaluation([*atlas_targets(atlas), *forum_targets(changes)], answers=None if known else {"fuzzy_match": "N/A"}),
        milestones=(done.on_page("search", "__WIKI__/search"), *steps),
        moves=(
            *find_article(museum, missing="N/A", careful=True), _to_forum(rf"founder\s+{LINK}"), Move("click", "inbox"),
            Move("open", name), Move("type", "your message", text), Move("click", "send", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, (site, "forum"), intent, draw, held_out=draw is announce_release)
    for draw, site, intent in (
        (
            post_review, "shop",
            'On the forum, post a thread with the title "{{title}}" in "{{community}}"; its text is what the customer who gave '
            '"{{product}}" {{stars}} of 5 stars wrote in the shop.',
        ),
        (
            announce_release, "code",
            'Announce the latest release of "{{project}}" on the forum: post a thread with the title "{{title}}" in "{{community}}", which '
            "you moderate, with nothing but the release's tag as its text, and make it sticky.",
        ),
        (
            announce_sale, "shop_admin",
            'Set the price of "{{product}}" to {{price}} in the admin panel, and post a thread with the title "{{title}}" in '
            '"{{community}}" on the forum; its text is "{{price}} instead of" and the old price.',
        ),
        (
            comment_birth_year, "wiki",
            'On the forum\'s thread "{{title}}", comment the year in which the mayor of "{{town}}" was born, and nothing else. '
            "The encyclopedia has it.",
        ),
        (
            message_founder, "wiki",
            'Look up who founded the "{{museum}}" in the encyclopedia, and send the name to "{{name}}", who has written to you on the '
            'forum. If there is no article about that museum, answer "N/A".',
        ),
    )
)  # fmt: skip
