"""The files by which rollouts and training of one online run know of each other."""

import dataclasses
from pathlib import Path

from mira_jax.errors import UserError
from mira_jax.files import read_json

ROUND = "round.json"
"""In the trainer's run folder: the newest version of the policy."""
DONE = "done.json"
"""In the folder of a round: the version that its episodes were drawn with. Written when they are complete."""


@dataclasses.dataclass(frozen=True)
class Version:
    """Weights of the policy."""

    round: int
    """The round after which they were saved. 0: before the first."""
    step: int
    """Number of updates."""
    fingerprint: str


def read_version(path: Path) -> Version:
    """Raises UserError if the file is damaged."""
    advice = "restore a copy, or run the same command in another out"
    tree = read_json(path, advice)
    try:
        return Version(int(tree["round"]), int(tree["step"]), str(tree["fingerprint"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: names no round, step and fingerprint; {advice}") from None
