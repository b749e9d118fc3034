"""The stages of a run: their config, and the placeholders in them.

    placeholder       stands for                                                      in
    {out}, {seed}     the run's folder and seed                                       every stage
    {seeds.NAME}      `seed` plus the offset NAME of `seeds`; in phase p, plus        every stage
                      1000 (p - 1), so that phases draw different tasks
    {values.NAME}     the value NAME of `values`, of any type                         every stage, and the names of configs
    {phase}           1, 2, ...                                                       `each_phase`
    {scheduled.NAME}  the item of the list NAME of `values` for this phase; later     `each_phase`
                      phases than the list has items get its last
    {carried.NAME}    what the previous phase produced, by `carried`                  `each_phase`, `after`
    {earlier}         each earlier phase in turn: an item of a list, or an entry      `each_phase`, `after`
                      of a mapping, that contains it is repeated for 1, 2, ...

{round}, {round_seed}, {version} and {policy} have values in the stages of `mira online` (`mira_jax.online`).

After the last phase, all phases are earlier, and `carried` is what the last one produced. A string that consists of one placeholder
becomes its value, such as a number.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mira_jax.config import Count, Natural
from mira_jax.errors import ConfigError

SEEDS_PER_PHASE = 1000
"""Difference between the seeds of two phases. Runs whose seeds differ by less never draw the tasks of each other."""
EARLIER = "{earlier}"
_PLACEHOLDER = re.compile(
    r"\{(?:out|seed|phase|earlier|round|version|policy|round_seed|export|(?:seeds|values|scheduled|carried)\.[^{}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Serve:
    """A model that is served while a stage runs."""

    model: str
    """The run folder to serve."""
    url: str
    """The key of the command's config that is set to the server's address, which ends in /v1."""
    name: str | None = None
    """The key that is set to the checkpoint's name: its path relative to `out`, so that it is the same in any run folder."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command."""

    name: str
    """Name of the stage, in messages, in its record and in its log. A stage of phase 2 is called NAME-2, and so is a stage that runs
    after 2 phases."""
    module: str
    """The module of the command, which is run as `python -m MODULE`."""
    about: str = ""
    """Description, printed when the stage starts."""
    config: str | list[str] | None = None
    """The config file of the command, or several, of which a later one takes precedence."""
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Keys of the command's config to values, in which placeholders are replaced."""
    serve: Serve | None = None
    """A model that is served while the stage runs."""
    parallel: bool = False
    """Runs the stage at the same time as the one before it, on the same machine."""
    always: bool = False
    """Runs the stage also if it is complete, for example a report that prints a table."""

    @property
    def configs(self) -> list[str]:
        return [self.config] if isinstance(self.config, str) else list(self.config or [])


@dataclasses.dataclass(frozen=True)
class Carried:
    """A value that each phase hands on to the next."""

    first: Any
    """The value in phase 1."""
    then: Any
    """The value that a phase hands on. {phase} is the number of the phase that produced it."""


@dataclasses.dataclass(frozen=True)
class PhasesConfig:
    stages: list[Stage]
    """The commands that run once, in order, before the phases. In `set`, `serve.model` and `config`, placeholders stand for the run's
    values (`mira_jax.stages`)."""
    each_phase: list[Stage] = dataclasses.field(default_factory=list)
    """The commands of every phase, in order."""
    after: list[Stage] = dataclasses.field(default_factory=list)
    """The commands that run once after the last phase."""
    phases: Count = 1
    """Number of phases. A run can be resumed with more phases."""
    carried: dict[str, Carried] = dataclasses.field(default_factory=dict)
    """Name to what a phase hands on to the next, such as its policy: the value stands for {carried.NAME}."""
    out: str = "runs/demo"
    """Folder of the run."""
    seed: Natural = 0
    """Replaces {seed} in the stages."""
    seeds: dict[str, Natural] = dataclasses.field(default_factory=dict)
    """Name to an offset. {seeds.NAME} in the stages is replaced by `seed` plus the offset."""
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Name to a value that stands for {values.NAME} in the stages, such as the config of the hardware."""
    needs: dict[str, str] = dataclasses.field(default_factory=dict)
    """Files, folders and, as $NAME, environment variables that must exist before the run, each with how to get it. May contain
    {values.NAME}."""
    serve_config: str | None = None
    """The config file of the server of `serve`, see `mira serve --help`. May contain {values.NAME}."""
    prunable: list[str] = dataclasses.field(default_factory=list)
    """Paths below {out}, with {phase} and * or **, that a complete phase no longer needs. `prune` removes them, except those that a
    stage still to run names, or that are inside a folder that it names."""
    prune: bool = False
    """Removes what is `prunable` when a phase is complete."""
    dry_run: bool = False
    """Lists the stages, and what is missing to run them: what `needs` names, and configs that do not load. Starts and writes nothing."""

    def __post_init__(self) -> None:
        for key, stages in self._lists():
            if stages and stages[0].parallel:
                raise ConfigError(f"{key}.0.parallel", f"stage {stages[0].name} is the first; there is none before it")
        names = [stage.name for _, stages in self._lists() for stage in stages]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError("stages", f"two stages have the same name, {twice}; give each its own")
        for key, stages in self._lists():
            for stage in stages:
                self._check(key, f"stage {stage.name}", stage.set, _groups(key))
                self._check(key, f"stage {stage.name}", stage.serve and stage.serve.model, _groups(key))
                self._check(key, f"the config of stage {stage.name}", stage.configs, ("values",))
        for name, carried in self.carried.items():
            self._check("carried", f"{name}.first", carried.first, ("out", "seed", "seeds", "values"))
            self._check("carried", f"{name}.then", carried.then, ("out", "seed", "seeds", "values", "phase"))
        self._check("needs", "needs", list(self.needs), ("values",))
        self._check("serve_config", "serve_config", self.serve_config, ("values",))
        self._check("prunable", "prunable", self.prunable, ("out", "phase", "values"))
        for path in self.prunable:
            if not path.startswith("{out}/") or ".." in path:
                raise ConfigError("prunable", f"{path} is not a path below {{out}}; begin it with {{out}}/")
        expanded = [stage.name for stage in expand(self)]
        if len(set(expanded)) != len(expanded):
            twice = next(name for name in expanded if expanded.count(name) > 1)
            raise ConfigError("each_phase", f"with the number of its phase, a stage has the name of another, {twice}; rename one")

    def _lists(self) -> tuple[tuple[str, list[Stage]], ...]:
        return (("stages", self.stages), ("each_phase", self.each_phase), ("after", self.after))

    def _check(self, key: str, where: str, tree: Any, groups: tuple[str, ...]) -> None:
        """Raises ConfigError for a placeholder that is unknown, or that has no value here."""
        for inside in placeholders(tree):
            placeholder = f"{{{inside}}}"
            group, _, name = inside.partition(".")
            if group not in groups:
                raise ConfigError(key, f"{where} uses {placeholder}, which has no value there; see docs/phases.md")
            source = "values" if group == "scheduled" else group
            if name and name not in getattr(self, source):
                raise ConfigError(key, f"{where} uses {placeholder}, but {source} has no {name}; add it to {source}")
            if group == "scheduled" and not _is_schedule(self.values[name]):
                raise ConfigError(f"values.{name}", f"{where} uses {placeholder}, which needs a list with an item for each phase")
        for text in _strings_outside(tree):
            if EARLIER in text:
                raise ConfigError(key, f"{where} uses {EARLIER} in {text!r}; it stands in items of lists and in keys of mappings")


def _groups(key: str) -> tuple[str, ...]:
    once = ("out", "seed", "seeds", "values")
    return {"stages": once, "each_phase": (*once, "phase", "scheduled", "carried", "earlier"), "after": (*once, "carried", "earlier")}[key]


def _is_schedule(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _strings_outside(tree: Any) -> Iterator[str]:
    """The strings of `tree` that are not repeated for each earlier phase."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from () if EARLIER in key else _strings_outside(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from () if _mentions_earlier(item) else _strings_outside(item)


def _mentions_earlier(item: Any) -> bool:
    """Whether `item`, an item of a list, itself contains {earlier}, and not only a list or mapping within it."""
    return any(EARLIER in text for text in _strings_outside(item))


def expand(config: PhasesConfig) -> list[Stage]:
    """All stages of the run, in order, with their placeholders filled in."""
    once = _values(config)
    stages = [_filled(stage, stage.name, once) for stage in config.stages]
    for phase in range(1, config.phases + 1):
        stages += phase_stages(config, phase)
    # The name contains the number of phases, so these stages run again when a run is resumed with more phases.
    last = {**once, **_carried(config, config.phases + 1)}
    return stages + [_filled(stage, f"{stage.name}-{config.phases}", last, range(1, config.phases + 1)) for stage in config.after]


def parallel_groups(stages: Sequence[Stage]) -> list[list[Stage]]:
    """The stages in order, those that run at the same time in one list."""
    groups: list[list[Stage]] = []
    for stage in stages:
        if stage.parallel and groups:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups


def phase_stages(config: PhasesConfig, phase: int) -> list[Stage]:
    """The stages of one phase."""
    scheduled = {f"{{scheduled.{name}}}": items[min(phase, len(items)) - 1] for name, items in config.values.items() if _is_schedule(items)}
    values = {**_values(config, phase), **scheduled, **_carried(config, phase), "{phase}": phase}
    return [_filled(stage, f"{stage.name}-{phase}", values, range(1, phase)) for stage in config.each_phase]


def prunable_paths(config: PhasesConfig, phase: int) -> list[str]:
    """`prunable` for one phase."""
    return [str(fill(path, {**_values(config), "{phase}": phase})) for path in config.prunable]


def fill_values(text: str, config: PhasesConfig) -> str:
    """`text` with {values.NAME} filled in."""
    return str(fill(text, {f"{{values.{name}}}": value for name, value in config.values.items()}))


def _values(config: PhasesConfig, phase: int = 1) -> dict[str, Any]:
    seed = config.seed + SEEDS_PER_PHASE * (phase - 1)
    return {
        "{out}": config.out,
        "{seed}": config.seed,
        **{f"{{seeds.{name}}}": seed + offset for name, offset in config.seeds.items()},
        **{f"{{values.{name}}}": value for name, value in config.values.items()},
    }


def _carried(config: PhasesConfig, phase: int) -> dict[str, Any]:
    """What the phase before `phase` handed on."""
    before = {**_values(config, max(phase - 1, 1)), "{phase}": phase - 1}
    return {f"{{carried.{name}}}": fill(carried.first if phase == 1 else carried.then, before) for name, carried in config.carried.items()}


def _filled(stage: Stage, name: str, values: Mapping[str, Any], earlier: range = range(0)) -> Stage:
    serve = stage.serve and dataclasses.replace(stage.serve, model=fill(stage.serve.model, values, earlier))
    configs = [str(fill(path, values)) for path in stage.configs]
    return dataclasses.replace(stage, name=name, config=configs or None, set=fill(stage.set, values, earlier), serve=serve)


def placeholders(tree: Any) -> list[str]:
    """The placeholders in the strings of a tree, without braces."""
    return [found[1:-1] for found in _PLACEHOLDER.findall(json.dumps(tree))]


def fill(value: Any, values: Mapping[str, Any], earlier: range = range(0)) -> Any:
    """Replaces placeholders in strings, also inside lists and mappings.

    Args:
        values: placeholder, with its braces, to its value. A string that consists of one placeholder becomes the value itself.
        earlier: the phases that {earlier} stands for.
    """
    if isinstance(value, str):
        if value in values:
            return values[value]
        return _PLACEHOLDER.sub(lambda match: str(values.get(match[0], match[0])), value)
    if isinstance(value, list):
        filled = []
        for item in value:
            for phase in earlier if _mentions_earlier(item) else (None,):
                filled.append(fill(item, values if phase is None else {**values, EARLIER: phase}, earlier))
        return filled
    if isinstance(value, dict):
        pairs = {}
        for key, item in value.items():
            for phase in earlier if EARLIER in key else (None,):
                own = values if phase is None else {**values, EARLIER: phase}
                pairs[str(fill(key, own))] = fill(item, own, earlier)
        return pairs
    return value
