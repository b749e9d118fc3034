"""The closed vocabulary of the map and the encyclopedia. All generated names consist of these words."""

COUNTRIES = ("lowland", "highland", "eastland", "westland", "sunland", "lakeland", "woodland", "farland")
TOWN_FIRST = (
    "ash", "oak", "elm", "birch", "red", "green", "grey", "white", "stone", "silver", "long", "high", "north", "east", "south", "west",
)  # fmt: skip
TOWN_LAST = ("ford", "bridge", "hill", "field", "mill", "wood", "bay", "marsh", "cross", "vale")
KINDS = ("museum", "cafe", "hotel", "pharmacy", "station", "library", "bakery", "bank")
TOPICS = ("glass", "clock", "ship", "toy", "tea", "paper", "coin", "silk", "salt", "bell", "train", "garden")
"""Subjects of museums."""
SIGNS = (
    "swan", "rose", "lion", "anchor", "copper", "crown", "lantern", "maple", "star", "pearl", "orchard", "royal", "golden", "little",
    "corner", "market", "sunny", "quiet", "central", "blue", "harbour", "meadow",
)  # fmt: skip
"""Name components of all other places."""
STREETS = (
    "mill lane", "church road", "station road", "park lane", "bridge street", "hill road", "garden row", "market street", "school lane",
    "king street", "river street", "abbey road",
)  # fmt: skip
RIVERS = ("amber", "winding", "crystal", "lower", "upper", "willow", "heron", "otter")
LAYERS = ("standard", "cycling", "hiking", "transport")
"""The first is the initial layer of the map."""

FIRST_NAMES = ("ada", "ben", "clara", "dan", "emma", "finn", "grace", "hugo", "ida", "jonas", "kate", "leo", "mara", "nils", "olga", "paul")
LAST_NAMES = ("stone", "marsh", "field", "brook", "wood", "hart", "lane", "frost", "dale", "reed", "fox", "winter")
EARLIER_WORK = ("teacher", "doctor", "farmer", "lawyer", "baker", "engineer")
"""Former occupations of mayors."""
OCCUPATIONS = ("painter", "writer", "composer", "botanist", "architect", "explorer")
"""Occupations of historical people."""
PASSWORDS = ("river", "maple", "pebble", "harvest", "meadow", "thunder", "willow", "ember")
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
FOUNDERS = ("millers", "fishermen", "monks", "miners", "weavers", "traders")
BUILDINGS = ("mill", "abbey", "bridge", "tower", "market hall", "school")
TRADES = ("fishing", "farming", "glass making", "weaving", "printing", "boat building")
FESTIVALS = ("lantern", "harvest", "music", "flower", "boat", "kite")
HOMES = ("farm", "mill", "bakery", "small shop", "school house", "light house")
WATERS = ("high hills", "deep forest", "wide moor", "cold springs")
EDITORS = ("heron", "quill", "compass", "inkwell", "sparrow", "atlas")
SUMMARIES = ("better wording", "new numbers", "fixed a name", "shorter", "added a source", "spelling")
"""Summaries of the edits made before an episode."""

SAVED_LABELS = ("home", "work", "gym", "school", "weekend", "grandma")
"""Initial labels of saved places."""
NEW_LABELS = (
    "first stop", "second stop", "last stop", "meeting point", "lunch", "picnic", "rainy day", "birthday", "with ben", "with clara",
    "day one", "day two", "day three", "plan b",
)  # fmt: skip
"""Labels that a task gives to saved places."""
LABEL_NOTES = ("ask for a table", "bring the tickets", "closed in winter", "ring twice", "park at the back", "meet at noon")
MAP_NOTES = (
    "the entrance has moved", "the sign is missing", "the lift is out of order", "the road is closed", "there is a new ramp",
    "the bridge is gone",
)  # fmt: skip
COMMENTS = ("seen on the door", "asked by phone", "as on the sign", "told by the owner", "as printed there")
"""Comments on corrections of the map."""
NEW_TEXTS = (
    "a new bridge was opened in spring", "the old hall is being repaired", "half of it was lost in a fire", "it was moved to a new home",
    "a book about it came out last year", "every summer there is a fair", "much of it is still unknown",
    "the first plan was never carried out",
)  # fmt: skip
"""Texts that a task writes into articles."""
NEW_SUMMARIES = ("news of this year", "from the town paper", "short and clear", "as in the new book")
