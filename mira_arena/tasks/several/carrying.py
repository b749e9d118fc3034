"""Facts from the map or the encyclopedia, used in the shop or on the code host."""

from random import Random

from mira_arena.sites.atlas import vocabulary as atlas_vocabulary
from mira_arena.sites.atlas.content import AtlasContent
from mira_arena.sites.code import vocabulary as code_vocabulary
from mira_arena.sites.code.content import MAIN, CodeContent, File
from mira_arena.sites.shop import vocabulary as shop_vocabulary
from mira_arena.sites.shop.content import Line, ShopContent
from mira_arena.tasks import milestones as done
from mira_arena.tasks.atlas.draws import nearest
from mira_arena.tasks.atlas.draws import pick as pick_places
from mira_arena.tasks.atlas.milestones import opened as opened_place
from mira_arena.tasks.atlas.milestones import read
from mira_arena.tasks.atlas.moves import find as find_on_atlas
from mira_arena.tasks.atlas.moves import go_to_nearest
from mira_arena.tasks.atlas.targets import targets as atlas_targets
from mira_arena.tasks.code.milestones import finished, on_project
from mira_arena.tasks.code.moves import open_project
from mira_arena.tasks.code.targets import code_targets, written
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.shop.draws import pick
from mira_arena.tasks.shop.milestones import at_checkout, in_cart, opened, ordered
from mira_arena.tasks.shop.moves import CHECKOUT, PLACE, fill, find, ship_by, ship_to
from mira_arena.tasks.shop.targets import Purchase, shop_targets
from mira_arena.tasks.shop_admin.targets import admin_targets
from mira_arena.tasks.templates import Draft, Template

_FILES = ("towns.txt", "people.txt", "numbers.txt")
_OTHER_TAB = "1"


def ship_to_nearest(random: Random, atlas: AtlasContent, shop: ShopContent) -> Draft | None:
    (here,), kind, product = pick_places(random, atlas, 1), random.choice(atlas_vocabulary.KINDS), pick(random, shop, colours=True)
    place = nearest(atlas, here.name, kind)
    if not (place and product):
        return None
    known = [(address.label, address.street, address.town) for address in shop.addresses]
    label = random.choice([label for label in shop_vocabulary.ADDRESS_LABELS if label not in {label for label, _, _ in known}])
    address = (label, place.street, place.town)
    line = Line(product.name, random.choice(product.colours[1:]), "", random.randrange(2, 7))
    purchase = Purchase((line,), shipping=random.choice(tuple(shop_vocabulary.SHIPPING)[1:]), address=address)
    fields = [Move("type", field, text) for field, text in zip(("name", "street", "town"), address, strict=True)]
    return Draft(
        values={
            "quantity": line.quantity, "product": product.name, "colour": line.colour, "shipping": purchase.shipping, "kind": kind,
            "place": here.name, "name": label,
        },
        evaluation=evaluation([*atlas_targets(atlas), *shop_targets(shop, purchase, [*known, address]), *admin_targets([])]),
        milestones=(
            opened_place(here.name), opened_place(place.name), done.on_page("open the form", "__SHOP__/account/addresses/new"),
            done.in_snapshot(f'save "{label}"', "shop", "addresses", list(address)), opened(product.name), in_cart(line),
            at_checkout((line,)), ordered(shop, purchase),
        ),
        moves=(
            *find_on_atlas(here.name, careful=True), *go_to_nearest(kind, place.name, careful=True),
            Move("switch", argument=_OTHER_TAB, note=r"address\s+([a-z ]+ \d+, [a-z ]+)"),
            *(Move("click", name) for name in ("account", "address book", "add address")), *fields,
            Move("click", "save address", habit="stops_early"), *find(product.name), *fill(line), *CHECKOUT, *ship_by(purchase.shipping),
            *ship_to(label), *PLACE,
        ),
    )  # fmt: skip


def list_populations(random: Random, atlas: AtlasContent, code: CodeContent) -> Draft:
    towns, project = random.sample(atlas.towns, 3), random.choice(code.with_role("maintainer"))
    file = File(MAIN, random.choice(_FILES), tuple(f"{town.name} = {town.population}" for town in towns))
    message = random.choice(code_vocabulary.COMMITS)
    changes = written(project, file, message)
    population, moves = r"population\s+(\d+)", []
    for before, town in zip(("", population, population), towns, strict=True):
        moves += find_on_atlas(town.name, note=before, careful=True)
    return Draft(
        values={
            **dict(zip(("first", "second", "third"), (town.name for town in towns), strict=True)),
            "file": file.path, "project": project.name, "message": message,
        },
        evaluation=evaluation([*atlas_targets(atlas), *code_targets(changes)]),
        milestones=(*(read(town.name) for town in towns), on_project(project), finished(f'commit "{file.path}"', changes)),
        moves=(
            *moves, Move("switch", argument=_OTHER_TAB, note=population), open_project(project), Move("click", "new file"),
            Move("type", "file name", file.path),
            *(Move("type", f"line {place}", line) for place, line in enumerate(file.lines, 1)),
            Move("type", "commit message", message), Move("click", "commit changes", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = (
    Template(
        "ship_to_nearest",
        ("map", "shop"),
        'Save the address of the {{kind}} nearest to "{{place}}", as the map has it, as "{{name}}" in the shop\'s address book. Then buy '
        '{{quantity}} of "{{product}}" in colour "{{colour}}" with "{{shipping}}" shipping to it.',
        ship_to_nearest,
    ),
    Template(
        "list_populations",
        ("wiki", "code"),
        'On the main branch of "{{project}}", add the file "{{file}}" with a line for each of "{{first}}", "{{second}}" and "{{third}}", '
        'in this order: its name, "=" and its population, as in "little village = 120". The commit message is "{{message}}".',
        list_populations,
    ),
)
