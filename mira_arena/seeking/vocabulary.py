"""Words that names are composed of. All splits use the same words, in combinations of their own."""

FIRST_NAMES = (
    "ada", "adam", "agnes", "alba", "albert", "alma", "anna", "anton", "arthur", "basil", "beatrice", "bela", "boris", "bruno", "carla",
    "cecil", "clara", "conrad", "cora", "daniel", "david", "della", "dora", "edgar", "edith", "edwin", "elena", "elias", "ella", "emil",
    "emma", "erik", "ernest", "esther", "eva", "felix", "flora", "frank", "frida", "georg", "gerda", "greta", "gustav", "hanna", "harald",
    "hector", "heidi", "helen", "henry", "hugo", "ida", "igor", "ines", "irene", "iris", "ivan", "jakob", "jana", "jonas", "josef",
    "julia", "karin", "karl", "kasper", "lara", "laura", "leo", "leon", "lidia", "linus", "lotte", "louis", "lucia", "ludwig", "magda",
    "marco", "maria", "martha", "martin", "max", "mila", "mira", "moritz", "nadia", "nils", "nina", "nora", "olaf", "olga", "oscar",
    "otto", "paula", "pedro", "petra", "philip", "raul", "regina", "rita", "robert", "rosa", "rudolf", "ruth", "samuel", "selma", "simon",
    "sofia", "sonja", "stella", "stefan", "sven", "tamara", "teresa", "thea", "theo", "tobias", "ulla", "vera", "viktor", "walter", "zora",
)  # fmt: skip
LAST_NAMES = (
    "abbott", "adler", "albrecht", "archer", "bach", "baker", "barlow", "barth", "becker", "berg", "bishop", "blake", "bloch", "bosch",
    "brand", "brook", "burke", "busch", "carver", "chandler", "cole", "cooper", "crane", "dahl", "daley", "decker", "dietz", "draper",
    "eklund", "ellis", "engel", "falk", "farrow", "fiedler", "finch", "fischer", "fletcher", "forster", "fowler", "franke", "frost",
    "fuchs", "gale", "gardner", "geiger", "glover", "graf", "grant", "gruber", "haas", "hagen", "hale", "hansen", "hardy", "hartman",
    "heller", "hess", "hoffman", "holm", "holt", "horn", "hunter", "jansen", "jordan", "kaiser", "keller", "kern", "klein", "koch",
    "kramer", "krause", "kruger", "lang", "larsen", "lindberg", "lorenz", "lund", "marsh", "mason", "mercer", "meyer", "moser", "nash",
    "neumann", "nolan", "nord", "olsen", "page", "palmer", "parker", "peters", "pohl", "porter", "quinn", "reed", "reuter", "richter",
    "roth", "sauer", "sawyer", "schmidt", "seidel", "shaw", "skinner", "slater", "sommer", "stark", "stein", "storm", "sutter", "tanner",
    "thorn", "turner", "ulrich", "vogel", "wagner", "weaver", "weber", "winter", "ziegler",
)  # fmt: skip
ADJECTIVES = (
    "amber", "ancient", "autumn", "bitter", "black", "blue", "bold", "brave", "bright", "broken", "bronze", "calm", "clear", "cold",
    "copper", "crimson", "dark", "deep", "distant", "early", "empty", "fair", "faint", "frozen", "gentle", "golden", "grand", "green",
    "grey", "hidden", "high", "hollow", "humble", "idle", "inner", "iron", "lonely", "long", "lost", "lower", "mild", "narrow", "new",
    "northern", "old", "outer", "pale", "patient", "plain", "proud", "purple", "quiet", "red", "rough", "royal", "sacred", "salty",
    "scarlet", "secret", "sharp", "silent", "silver", "slow", "small", "soft", "southern", "steady", "steep", "still", "stony", "summer",
    "sunny", "sweet", "tall", "upper", "warm", "western", "white", "wide", "wild",
)  # fmt: skip
PLACES = (
    "abbey", "arbor", "bank", "barn", "bay", "beach", "bluff", "bridge", "canal", "castle", "cave", "chapel", "cliff", "coast", "corner",
    "court", "cove", "creek", "crossing", "dale", "dam", "dock", "dune", "falls", "farm", "ferry", "field", "ford", "forest", "fort",
    "garden", "gate", "glen", "grove", "hall", "harbor", "heath", "hill", "hollow", "inlet", "island", "lake", "landing", "lodge", "market",
    "meadow", "mill", "moor", "mount", "mouth", "orchard", "park", "pass", "peak", "pier", "plain", "point", "pond", "port", "quarry",
    "reef", "ridge", "rock", "sands", "shore", "spring", "square", "station", "strand", "summit", "tower", "trail", "vale", "valley",
    "view", "village", "vineyard", "well", "wharf", "woods",
)  # fmt: skip
THINGS = (
    "anchor", "apple", "arrow", "bell", "bird", "boat", "bottle", "bread", "broom", "candle", "carpet", "chain", "chair", "clock", "cloud",
    "coat", "coin", "comet", "compass", "crown", "cup", "curtain", "door", "drum", "feather", "fire", "fish", "flag", "flower", "flute",
    "glass", "glove", "hammer", "hat", "helmet", "horse", "island", "jar", "key", "kite", "knife", "ladder", "lamp", "lantern", "leaf",
    "letter", "lion", "map", "mask", "mirror", "moon", "needle", "oven", "owl", "painting", "pearl", "pen", "piano", "pipe", "plough",
    "rain", "ribbon", "ring", "river", "road", "rope", "rose", "saddle", "sail", "shadow", "ship", "shoe", "snow", "spoon", "star", "stone",
    "storm", "sword", "table", "wheel",
)  # fmt: skip
WORKS = ("ballad", "book", "dream", "hymn", "opera", "portrait", "song", "tale")
TRADES = (
    "amber", "bread", "brick", "bronze", "canal", "cattle", "cloth", "coal", "coffee", "copper", "cotton", "fish", "flour", "fruit",
    "glass", "grain", "honey", "iron", "lace", "leather", "linen", "marble", "music", "oil", "paper", "pearl", "porcelain", "rail",
    "rope", "salt", "silk", "silver", "steel", "stone", "sugar", "tea", "timber", "tobacco", "wine", "wool",
)  # fmt: skip
BODIES = ("academy", "company", "guild", "institute", "library", "museum", "society", "trust")
EVENTS = ("congress", "fair", "festival", "prize", "race", "regatta")
ANIMALS = (
    "badger", "bear", "beaver", "crow", "deer", "dove", "eagle", "falcon", "fox", "goat", "goose", "hare", "hawk", "hedgehog", "heron",
    "lark", "lynx", "marten", "mole", "otter", "ox", "pike", "raven", "robin", "salmon", "seal", "stag", "stork", "swan", "toad", "trout",
    "weasel", "whale", "wolf", "wren",
)  # fmt: skip
