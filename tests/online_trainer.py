"""A trainer for test_online: says that a round is trained on as soon as its episodes are there."""

import dataclasses
import json
import sys
import time
from pathlib import Path

from mira_jax import commands
from mira_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    out: str = ""
    rollouts: str = ""
    rounds: int = 1
    staleness: int = 0
    seed: int = 0
    fail_after: int = 100


def main(config: TrainerConfig) -> None:
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    for number in range(config.rounds + 1):
        while number and not (Path(config.rollouts) / str(number) / "done.json").exists():
            time.sleep(0.02)
        if number > config.fail_after:
            raise UserError("told to fail")
        (out / "new.json").write_text(json.dumps({"round": number, "step": 2 * number, "fingerprint": f"weights {number}"}))
        (out / "new.json").replace(out / "round.json")


COMMAND = commands.Command("trainer", main, TrainerConfig, __doc__)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
