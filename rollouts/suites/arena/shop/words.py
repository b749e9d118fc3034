"""The closed vocabulary of the arena: every name that a seed can draw is made of these words."""

ADJECTIVES = (
    "round", "soft", "little", "tall", "quiet", "plain", "oak", "woven", "linen", "old", "folding", "striped",
    "glass", "copper", "heavy", "wide", "narrow", "curved", "velvet", "rustic", "modern", "nordic", "carved", "hollow",
    "bright", "warm", "cosy", "simple", "slim", "dotted",
)  # fmt: skip
NOUNS = {
    "lighting": ("lamp", "lantern", "candle", "sconce", "torch"),
    "kitchen": ("kettle", "mug", "bowl", "pan", "teapot"),
    "furniture": ("chair", "stool", "bench", "sofa", "desk"),
    "garden": ("planter", "trowel", "rake", "basket", "birdhouse"),
    "stationery": ("notebook", "pen", "pencil", "folder", "calendar"),
    "textiles": ("blanket", "cushion", "rug", "towel", "curtain"),
}
CATEGORIES = tuple(NOUNS)
COLOURS = ("red", "green", "blue", "grey", "white", "yellow")
SIZES = ("small", "medium", "large")
COUPON_SEASONS = ("spring", "summer", "autumn", "winter", "holiday", "weekend")
COUPON_KINDS = ("sale", "treat", "deal", "gift")
SHIPPING = {"standard": 4, "express": 9, "courier": 15}
"""Shipping method to its price in dollars. The first is the default."""
STATUSES = ("pending", "packed", "shipped", "delivered", "cancelled")
ADDRESS_LABELS = ("home", "office", "cabin", "studio", "garage", "harbour")
STREETS = ("mill lane", "church road", "river street", "hill road", "park lane", "bridge street", "station road", "garden row")
TOWNS = ("ashford", "millbrook", "westbury", "fairview", "norwood", "lakeside", "oakham", "redhill")
FIRST_NAMES = ("ada", "ben", "clara", "dan", "emma", "finn", "grace", "hugo", "ida", "jonas", "kate", "leo")
LAST_NAMES = ("stone", "marsh", "field", "brook", "wood", "hart", "lane", "frost", "dale", "reed")
PASSWORDS = ("river", "maple", "pebble", "harvest", "meadow", "thunder", "willow", "ember")
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
REVIEWS = {
    1: ("broke too soon", "not as shown", "sent it back"),
    2: ("a bit too small", "poor finish", "not for me"),
    3: ("does the job", "fair for the price", "neither good nor bad"),
    4: ("good value", "well made", "looks nice"),
    5: ("would buy again", "a fine gift", "my favourite"),
}
"""Stars to what a reviewer says."""
