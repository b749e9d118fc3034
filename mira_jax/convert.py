"""Converts episodes between shards and the formats of other programs.

    mira convert runs/x/labelled --write atif --out runs/x/atif
    mira convert runs/x/atif --read atif --out runs/x/again

    format       read   write   input
    shards       yes    yes     a folder of shards
    atif         yes    yes     ATIF files (JSON) of Harbor, or their folder
    webrl        yes    no      a rollout folder of WebRL, or its training data as JSON
    browsergym   yes    no      JSON lines that examples/agentlab_to_jsonl.py writes

docs/interchange.md says what each format keeps and loses. An episode that cannot be converted is refused, and nothing is written,
unless skip=true. No pickle is read.
"""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal

from mira_jax import commands
from mira_jax.config import NonNegative
from mira_jax.errors import ConfigError, UserError
from mira_jax.files import partial_folder, publish, remedy, sole_writer
from mira_jax.interchange import atif_read, browsergym, sources, webrl
from mira_jax.interchange.atif_folder import write_folder
from mira_jax.interchange.atif_write import Settings
from mira_jax.needs import Needs
from mira_jax.progress import track
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.shards import ShardReader, write_shard
from mira_jax.trajectories.tokenizer import Tokenizer

READERS = {"atif": atif_read, "webrl": webrl, "browsergym": browsergym}
PER_SHARD = 1024
SHOWN = 20
"""Maximum number of skipped episodes that are printed."""


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    input: str = ""
    """The file or folder to read."""
    out: str = ""
    """The folder to write. It must not exist, or be empty."""
    read: Literal["shards", "atif", "webrl", "browsergym"] = "shards"
    """Format of the input."""
    write: Literal["shards", "atif"] = "shards"
    """Format of the output."""
    skip: bool = False
    """Leave out episodes that cannot be converted and print why. By default, the first such episode ends the command."""
    split: Literal["train", "validation", "test"] = "train"
    """Split of the tasks of other programs' episodes."""
    policy: str | None = None
    """Name of the policy of other programs' episodes. Default: the agent's name in the file, or that of the format."""
    prompt_price: NonNegative | None = None
    """For write=atif: USD per million prompt tokens. Together with response_price it gives the costs. Default: no costs are written."""
    response_price: NonNegative | None = None
    """For write=atif: USD per million response tokens."""
    tokenizer: str | None = None
    """For write=atif: the policy's tokenizer, to write the token ids of the prompts."""

    def __post_init__(self) -> None:
        if (self.prompt_price is None) != (self.response_price is None):
            raise ConfigError("prompt_price", "prompt_price and response_price are given together, or neither")


def main(config: ConvertConfig) -> int:
    if config.read == config.write == "shards":
        raise ConfigError("write", "read and write are both shards; set one of them, for example --write atif")
    out, refusals = Path(config.out), Refusals(config.skip)
    with sole_writer(out, "a conversion"), partial_folder(out) as partial, contextlib.closing(found(config)) as every:
        _refuse_content(out)
        episodes = _kept(every, refusals.add)
        if config.write == "shards":
            count, lost = _write_shards(partial, episodes), 0
        else:
            count, lost = write_folder(partial, episodes, _settings(config), refusals.add)
        if not count:
            found_none = "holds no episode; name another file or folder"
            raise UserError(f"{config.input}: {refusals.summary() or found_none}")
        try:
            publish(partial, out)
        except OSError as error:
            raise UserError(f"{out}: could not write ({error.strerror}); {remedy(error)}") from None
    refusals.report()
    if lost:
        print(f"{lost} steps have no prompt_token_ids: the tokenizer does not give their recorded prompts")
    print(f"{out}: {count} episodes" + (f", {len(refusals.errors)} skipped" if refusals.errors else ""))
    return 0


class Refusals:
    """The episodes that cannot be converted. Without `skip`, the first one ends the command."""

    def __init__(self, skip: bool):
        self.errors: list[UserError] = []
        self._skip = skip

    def add(self, error: UserError) -> None:
        if not self._skip:
            raise error
        self.errors.append(error)

    def summary(self) -> str:
        return f"all {len(self.errors)} episodes are refused; {self.errors[0]}" if self.errors else ""

    def report(self) -> None:
        for error in self.errors[:SHOWN]:
            print(f"skipped: {error}")
        if len(self.errors) > SHOWN:
            print(f"skipped: {len(self.errors) - SHOWN} more")


def found(config: ConvertConfig) -> Generator[tuple[str, sources.Found], None, None]:
    """Each episode of the input, or why it is refused, with its place for messages."""
    if config.read == "shards":
        reader = ShardReader(config.input)
        for trajectory in track(reader, "convert", "episodes", len(reader)):
            yield f"episode {trajectory.id}", trajectory
        return
    reader, foreign, attempts = READERS[config.read], sources.Foreign(config.split, config.policy or ""), sources.Attempts()
    paths = reader.files(Path(config.input))
    for path in track(paths, "convert", "files", len(paths)):
        yield from reader.episodes(path, foreign, attempts)


def _kept(episodes: Iterator[tuple[str, sources.Found]], refuse: Callable[[UserError], None]) -> Iterator[Trajectory]:
    """The episodes that are not refused. Also refuses those whose id or key occurred before."""
    ids: dict[str, str] = {}
    keys: dict[tuple[str, str], str] = {}
    for source, episode in episodes:
        if isinstance(episode, Trajectory):
            key = (episode.key, episode.policy.fingerprint)
            first = ids.get(episode.id) or keys.get(key)
            if first is None:
                ids[episode.id] = keys[key] = source
                yield episode
                continue
            episode = UserError(f"{source}: the same episode as {first}; an episode counts once: remove one of them, or set skip=true")
        refuse(episode)


def _write_shards(folder: Path, episodes: Iterator[Trajectory]) -> int:
    """Returns the number of episodes."""
    count, number = 0, 0
    while part := list(itertools.islice(episodes, PER_SHARD)):
        write_shard(folder / f"episodes-{number:05d}.array_record", part)
        count, number = count + len(part), number + 1
    return count


def _settings(config: ConvertConfig) -> Settings:
    return Settings(config.prompt_price, config.response_price, Tokenizer(config.tokenizer) if config.tokenizer else None)


def _refuse_content(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("out", f"{out}: already exists; choose another folder")


def needs(config: ConvertConfig, found: Needs) -> None:
    check: Callable[[str, str], object] = found.shards if config.read == "shards" else found.input
    check("input", config.input)
    found.input("tokenizer", config.tokenizer)
    found.output("out", config.out)


REQUIRED = {
    "input": "name the file or folder to read, for example mira convert runs/x/labelled --write atif --out runs/x/atif",
    "out": "name the folder to write, for example --out runs/x/atif",
}
COMMAND = commands.Command(
    "convert", main, ConvertConfig, __doc__, flags=("read", "write", "out", "skip"), positional=("input",), required=REQUIRED, needs=needs
)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
