"""A stage for test_phases: appends its values to a file, and fails or waits if told to."""

import dataclasses
import sys
import time
from pathlib import Path

from mira_jax import commands
from mira_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class StageConfig:
    log: str = ""
    note: str = ""
    seed: int = 0
    address: str = ""
    fail_unless: str = ""
    wait: float = 0.0
    save: float = 0.0
    """Seconds it takes to save once it is interrupted; a second signal in that time ends it at once."""


def main(config: StageConfig) -> None:
    if config.fail_unless and not Path(config.fail_unless).exists():
        raise UserError("told to fail")
    with open(config.log, "a") as file:
        file.write(f"{config.note} {config.seed} {config.address}".rstrip() + "\n")
    try:
        time.sleep(config.wait)
    except KeyboardInterrupt:
        time.sleep(config.save)
        with open(config.log, "a") as file:
            file.write(f"{config.note} saved\n")
        raise


COMMAND = commands.Command("stage", main, StageConfig, __doc__)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
