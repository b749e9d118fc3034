"""A stage for test_ring_online: an episode succeeds if more than half of the characters of its first response are not letters."""

import dataclasses
import sys
from pathlib import Path

import msgspec

from mira_jax import commands
from mira_jax.trajectories.records import Outcome, Status
from mira_jax.trajectories.shards import ShardReader, write_shard


@dataclasses.dataclass(frozen=True)
class LabelConfig:
    folder: str = ""
    out: str = ""


def main(config: LabelConfig) -> None:
    episodes = []
    for one in ShardReader([config.folder]):
        text = one.steps[0].response
        success = sum(character.isalpha() for character in text) * 2 < len(text)
        outcome = Outcome(success=success, score=float(success), source="rule")
        # One of these episodes would otherwise have run out of steps, and has no reward then.
        episodes.append(msgspec.structs.replace(one, outcome=outcome, status=Status.FINISHED))
    write_shard(Path(config.out) / "episodes-00000.array_record", episodes)


COMMAND = commands.Command("label", main, LabelConfig, __doc__)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
