"""Places that tours offer."""

PLACES = (
    "abbey", "arch", "bay", "beach", "bridge", "canal", "castle", "cave", "cliff", "coast", "dune", "falls", "farm", "ferry", "field",
    "forest", "fort", "garden", "gate", "grove", "harbor", "hill", "inn", "island", "lake", "lodge", "market", "meadow", "mill", "museum",
    "orchard", "palace", "park", "peak", "pier", "plaza", "pond", "quarry", "reef", "ridge", "river", "ruin", "shore", "spring", "square",
    "temple", "theater", "tower", "trail", "tunnel", "valley", "village", "vineyard", "well", "wharf", "windmill", "woods", "zoo",
)  # fmt: skip
