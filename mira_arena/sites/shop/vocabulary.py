"""The closed vocabulary of the shop and its admin panel. All generated names consist of these words."""

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
"""Shipping method to price in dollars. The first is the default."""
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
"""Number of stars to possible texts of a review."""

# Words that only the admin panel shows.

GROUPS = ("general", "wholesale", "retailer")
MAIL_HOSTS = ("post.example", "mail.example", "home.example")
CARRIERS = ("post", "courier", "freight", "bicycle")
SALE_STATUSES = ("on sale", "off sale")
INFO_PAGES = {
    "about us": ("we are a small shop by the river", "we have sold since spring", "two of us pack every order"),
    "gift cards": ("gift cards never end", "a gift card comes by mail", "gift cards are sold at the desk"),
    "opening hours": ("open from nine to five", "closed on sunday", "open every day in december"),
    "returns": ("send it back in two weeks", "keep the box for a return", "returns are free of charge"),
    "shipping": ("orders leave within two days", "heavy things go by freight", "we ship on monday and friday"),
}
"""Titles of the shop's text pages to their possible texts."""
PAGE_TEXTS = ("closed for the summer", "please call before you come", "we have moved to mill lane", "ask us by mail first")
DESCRIPTIONS = (
    "made by hand in lakeside", "the last of its kind", "a gift for any season", "lasts for years", "new in the shop", "from old wood",
)  # fmt: skip
MESSAGES = ("sorry for the wait", "your money is on its way", "we are sorry to see it go", "done as you asked", "call us if you need more")
SHIPPING_NOTES = ("leave it at the door", "ring twice", "please handle with care", "the box is heavy", "give it to a neighbour")
