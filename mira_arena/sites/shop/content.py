"""Initial content of the shop, generated from a seed."""

import dataclasses
import functools
from random import Random

from mira_arena.sites.shop import vocabulary

PRODUCTS_PER_CATEGORY = 8
OTHER_CUSTOMERS = 4
ORDERS_OF_OTHERS = 8
ORDERS_OF_CUSTOMER = 4


@dataclasses.dataclass(frozen=True)
class Review:
    author: str
    stars: int
    text: str


@dataclasses.dataclass(frozen=True)
class Product:
    name: str
    category: str
    price: int
    """Price in whole dollars."""
    stock: int
    popularity: int
    """Products of larger popularity are listed first. All values differ."""
    colours: tuple[str, ...]
    sizes: tuple[str, ...]
    reviews: tuple[Review, ...]

    @property
    def rating(self) -> float:
        """Mean number of stars. 0 without reviews."""
        return sum(review.stars for review in self.reviews) / max(1, len(self.reviews))


@dataclasses.dataclass(frozen=True)
class Address:
    label: str
    street: str
    town: str


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of an order or a cart. '' stands for an option that the product does not have."""

    product: str
    colour: str
    size: str
    quantity: int


@dataclasses.dataclass(frozen=True)
class Order:
    number: int
    customer: str
    status: str
    shipping: str
    address: Address
    coupon: str
    day: str
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True)
class ShopContent:
    seed: int
    customer: str
    """Name of the signed-in customer."""
    password: str
    day: str
    products: tuple[Product, ...]
    coupons: dict[str, int]
    """Coupon code to discount in percent."""
    addresses: tuple[Address, ...]
    """Addresses of the customer. The first is the default."""
    orders: tuple[Order, ...]
    """Orders, by number."""

    @functools.cached_property
    def by_name(self) -> dict[str, Product]:
        return {product.name: product for product in self.products}

    @property
    def own_orders(self) -> tuple[Order, ...]:
        return tuple(order for order in self.orders if order.customer == self.customer)


@functools.lru_cache(maxsize=128)
def make_content(seed: int) -> ShopContent:
    """Creates the shop of a seed. Deterministic."""
    random = Random(f"shop {seed}")
    products = _products(random)
    people = random.sample([f"{first} {last}" for first in vocabulary.FIRST_NAMES for last in vocabulary.LAST_NAMES], OTHER_CUSTOMERS + 1)
    month = random.randrange(12)
    addresses = tuple(_address(random, label) for label in random.sample(vocabulary.ADDRESS_LABELS, 3))
    codes = random.sample([f"{season} {kind}" for season in vocabulary.COUPON_SEASONS for kind in vocabulary.COUPON_KINDS], 3)
    coupons: dict[str, int] = dict(zip(codes, random.sample((10, 15, 20, 25), 3), strict=True))
    return ShopContent(
        seed=seed,
        customer=people[0],
        password=f"{random.choice(vocabulary.PASSWORDS)} {random.randrange(10, 100)}",
        day=f"28 {vocabulary.MONTHS[month]}",
        products=products,
        coupons=coupons,
        addresses=addresses,
        orders=_orders(random, products, people, addresses, codes, vocabulary.MONTHS[month]),
    )


def _products(random: Random) -> tuple[Product, ...]:
    """Draws products. Adjectives and nouns are few and recur, so that a search also returns neighbours of the wanted product."""
    adjectives = random.sample(vocabulary.ADJECTIVES, 14)
    names = []
    for category, nouns in vocabulary.NOUNS.items():
        pairs = [(adjective, noun) for noun in random.sample(nouns, 3) for adjective in adjectives]
        names += [(category, f"{adjective} {noun}") for adjective, noun in random.sample(pairs, PRODUCTS_PER_CATEGORY)]
    popularity = random.sample(range(100, 1000), len(names))
    prices = {category: random.sample(range(5, 100), PRODUCTS_PER_CATEGORY) for category in vocabulary.CATEGORIES}
    products = []
    for (category, name), popular in zip(names, popularity, strict=True):
        products.append(
            Product(
                name=name,
                category=category,
                price=prices[category].pop(),
                stock=random.randrange(12, 60),
                popularity=popular,
                colours=tuple(random.sample(vocabulary.COLOURS, 3)) if random.random() < 0.6 else (),
                sizes=vocabulary.SIZES if random.random() < 0.4 else (),
                reviews=_reviews(random),
            )
        )
    return tuple(products)


def _reviews(random: Random) -> tuple[Review, ...]:
    """Three reviews by different people with different numbers of stars."""
    given = zip(random.sample(vocabulary.FIRST_NAMES, 3), random.sample(range(1, 6), 3), strict=True)
    return tuple(Review(author, stars, random.choice(vocabulary.REVIEWS[stars])) for author, stars in given)


def _address(random: Random, label: str) -> Address:
    return Address(label, f"{random.choice(vocabulary.STREETS)} {random.randrange(1, 100)}", random.choice(vocabulary.TOWNS))


def _orders(
    random: Random, products: tuple[Product, ...], people: list[str], addresses: tuple[Address, ...], codes: list[str], month: str
) -> tuple[Order, ...]:
    customers = [people[0]] * ORDERS_OF_CUSTOMER + [random.choice(people[1:]) for _ in range(ORDERS_OF_OTHERS)]
    random.shuffle(customers)
    homes = {name: _address(random, "home") for name in people[1:]}
    number = random.randrange(110, 900)
    days = sorted(random.randrange(1, 28) for _ in customers)
    # Two pending orders of the customer, and two of other people.
    pending = {people[0]: 2, "": 2}
    orders = []
    for position, (customer, day) in enumerate(zip(customers, days, strict=True)):
        group = people[0] if customer == people[0] else ""
        status = "pending" if pending[group] > 0 else random.choice(("packed", "shipped", "delivered"))
        pending[group] -= 1
        lines = tuple(_line(random, product) for product in random.sample(products, random.choice((1, 1, 2))))
        orders.append(
            Order(
                number=number + position,
                customer=customer,
                status=status,
                shipping=random.choice(list(vocabulary.SHIPPING)),
                address=random.choice(addresses) if customer == people[0] else homes[customer],
                coupon=random.choice(["", "", *codes]),
                day=f"{day} {month}",
                lines=lines,
            )
        )
    return tuple(orders)


def _line(random: Random, product: Product) -> Line:
    return Line(product.name, random.choice(product.colours or ("",)), random.choice(product.sizes or ("",)), random.randrange(1, 4))
