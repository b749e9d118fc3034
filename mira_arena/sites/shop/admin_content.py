"""Initial content that only the admin panel shows. It has its own random generator, so it does not affect the shop's content."""

import dataclasses
import datetime
import functools
from random import Random

from mira_arena.sites.shop import vocabulary
from mira_arena.sites.shop.content import ShopContent, make_content

PAST_MONTHS = 5
"""Number of months with data before the month of the shop's orders."""
PAST_ORDERS = 44
OTHER_ACCOUNTS = 5
"""Number of accounts without an order this month."""
PENDING_REVIEWS = 10
ENDED_COUPONS = 5


@dataclasses.dataclass(frozen=True)
class Account:
    name: str
    email: str
    phone: str
    group: str


@dataclasses.dataclass(frozen=True)
class PastOrder:
    """An order of an earlier month, as counted by reports."""

    number: int
    customer: str
    status: str
    """delivered or cancelled."""
    day: str
    """Date, such as 2026-03-14. All days here have this form."""
    product: str
    quantity: int
    total: int


@dataclasses.dataclass(frozen=True)
class PendingReview:
    """A review that the shop does not show yet."""

    number: int
    product: str
    author: str
    stars: int
    text: str


@dataclasses.dataclass(frozen=True)
class Coupon:
    code: str
    percent: int
    ends: str
    status: str
    """active or ended. The coupons in the shop's content are the active ones."""


@dataclasses.dataclass(frozen=True)
class AdminContent:
    day: str
    """Current day."""
    accounts: tuple[Account, ...]
    """Accounts, by name."""
    past_orders: tuple[PastOrder, ...]
    """Past orders, by number."""
    reviews: tuple[PendingReview, ...]
    """Pending reviews, by number. Three of them have the same author."""
    coupons: tuple[Coupon, ...]
    """Coupons, by code."""
    info_pages: dict[str, str]
    """Title to text."""

    @property
    def first_day(self) -> str:
        """First day covered by reports."""
        return month_before(self.day, PAST_MONTHS)


@functools.lru_cache(maxsize=128)
def make_admin_content(seed: int) -> AdminContent:
    """Creates the panel's content for the shop of a seed. Deterministic."""
    content, random = make_content(seed), Random(f"shop admin {seed}")
    day, month = content.day.split()
    today = f"{random.randrange(2021, 2030)}-{vocabulary.MONTHS.index(month) + 1:02}-{day}"
    accounts = _accounts(random, content)
    return AdminContent(
        day=today,
        accounts=accounts,
        past_orders=_past_orders(random, content, [account.name for account in accounts], today),
        reviews=_reviews(random, content),
        coupons=_coupons(random, content, today),
        info_pages={title: random.choice(texts) for title, texts in vocabulary.INFO_PAGES.items()},
    )


def month_before(day: str, months: int) -> str:
    """First day of the month that is this number of months before the month of `day`."""
    month = int(day[:4]) * 12 + int(day[5:7]) - 1 - months
    return f"{month // 12}-{month % 12 + 1:02}-01"


def days_after(day: str, days: int) -> str:
    return (datetime.date.fromisoformat(day) + datetime.timedelta(days=days)).isoformat()


def _accounts(random: Random, content: ShopContent) -> tuple[Account, ...]:
    names = {order.customer for order in content.orders}
    others = [f"{first} {last}" for first in vocabulary.FIRST_NAMES for last in vocabulary.LAST_NAMES if f"{first} {last}" not in names]
    names |= set(random.sample(others, OTHER_ACCOUNTS))
    phones = random.sample(range(1000, 10_000), len(names))
    return tuple(
        Account(name, f"{name.replace(' ', '.')}@{random.choice(vocabulary.MAIL_HOSTS)}", f"555 {phone}", random.choice(vocabulary.GROUPS))
        for name, phone in zip(sorted(names), phones, strict=True)
    )


def _past_orders(random: Random, content: ShopContent, names: list[str], today: str) -> tuple[PastOrder, ...]:
    """Draws past orders. Most have few products and few customers, so that there are best sellers and top customers."""
    first = month_before(today, PAST_MONTHS)
    span = (datetime.date.fromisoformat(month_before(today, 0)) - datetime.date.fromisoformat(first)).days
    days = sorted(random.randrange(span) for _ in range(PAST_ORDERS))
    products, customers = random.sample(content.products, 8), random.sample(names, 5)
    orders = []
    for position, day in enumerate(days):
        product, quantity = random.choice(products), random.randrange(1, 5)
        orders.append(
            PastOrder(
                number=content.orders[0].number - PAST_ORDERS + position,
                customer=random.choice(customers),
                status="cancelled" if random.random() < 0.25 else "delivered",
                day=days_after(first, day),
                product=product.name,
                quantity=quantity,
                total=product.price * quantity + random.choice(list(vocabulary.SHIPPING.values())),
            )
        )
    return tuple(orders)


def _reviews(random: Random, content: ShopContent) -> tuple[PendingReview, ...]:
    often, *others = random.sample(vocabulary.FIRST_NAMES, PENDING_REVIEWS - 2)
    authors = [often] * 3 + others
    random.shuffle(authors)
    numbers = sorted(random.sample(range(200, 1000), PENDING_REVIEWS))
    reviews = []
    for number, author, product in zip(numbers, authors, random.sample(content.products, PENDING_REVIEWS), strict=True):
        stars = random.randrange(1, 6)
        reviews.append(PendingReview(number, product.name, author, stars, random.choice(vocabulary.REVIEWS[stars])))
    return tuple(reviews)


def _coupons(random: Random, content: ShopContent, today: str) -> tuple[Coupon, ...]:
    coupons = [Coupon(code, percent, days_after(today, random.randrange(5, 90)), "active") for code, percent in content.coupons.items()]
    codes = [f"{season} {kind}" for season in vocabulary.COUPON_SEASONS for kind in vocabulary.COUPON_KINDS]
    for code in random.sample([code for code in codes if code not in content.coupons], ENDED_COUPONS):
        coupons.append(Coupon(code, random.choice((10, 15, 20, 25)), days_after(today, -random.randrange(5, 90)), "ended"))
    return tuple(sorted(coupons, key=lambda coupon: coupon.code))
