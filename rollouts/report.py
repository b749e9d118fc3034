"""Writes an HTML report on a set of evaluations.

The page is self-contained: it opens from a file, in any browser, without a network.

    mira report --config configs/demo/report.yaml
"""

import csv
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mira_jax import commands
from mira_jax.config import Level, Natural
from mira_jax.errors import ConfigError
from mira_jax.files import write_atomically
from mira_jax.needs import Needs
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.summary import Summary
from rollouts.analysis.critics import read_quality
from rollouts.analysis.evaluation import Evaluation, read_run, read_stages
from rollouts.analysis.summary import summarise, table, to_rows
from rollouts.pages import report as report_page

SIZE = 2**24
"""Free bytes that a file of the report needs."""


@dataclass(frozen=True)
class ReportConfig:
    title: str = "Web agents, evaluated"
    """Title of the page."""
    about: str = ""
    """One or two introductory sentences below the title."""
    evaluations: dict[str, str] = field(default_factory=dict)
    """Method to folder, in display order: folders written by `mira evaluate`, or labelled shards. All must have the same tasks."""
    baseline: str = ""
    """Method in `evaluations` used as the baseline. Empty: the first."""
    treatment: str = ""
    """Method in `evaluations` that is compared with the baseline first. Empty: the last."""
    scores: dict[str, list[str]] = field(default_factory=dict)
    """Method to side tables with `value` and `potential` of its episodes (`mira score`)."""
    critics: str = ""
    """`critic.json` of `mira score` on the episodes that the policies were trained on: what the critics are worth."""
    training: dict[str, str] = field(default_factory=dict)
    """Name to run folder with `metrics.jsonl`, in display order."""
    metrics: list[str] = field(default_factory=list)
    """Metrics to draw for each run. Empty: up to six, losses first."""
    seed: Natural | None = None
    """Training seed, for the summary."""
    stages: str = ""
    """Minutes per stage: a JSON file with stage to minutes, at the top level or under `minutes`, or the stage records of
    `mira_jax.phases`."""
    trajectories: Natural = 6
    """Number of tasks shown step by step, each with one episode per method."""
    page_characters: Natural = 4000
    """Maximum characters of the page's text shown at a step."""
    max_megabytes: Annotated[float, Meta(ge=1)] = 4.5
    """Maximum size of the page. Screenshots, then tasks, are left out to stay below it."""
    level: Level = 0.95
    """Confidence level of the intervals."""
    out: str = "report.html"
    """Output file."""
    summary: str = ""
    """Optional JSON file for the figures: every method, every pair compared, the seed and the minutes (docs/formats.md)."""
    table: str = ""
    """Optional CSV file for the success per method and template."""

    def __post_init__(self) -> None:
        if not self.evaluations:
            raise ConfigError("evaluations", "name at least one, for example {sft: runs/demo/evaluations/sft}")
        for key, names in (("baseline", [self.baseline]), ("treatment", [self.treatment]), ("scores", self.scores)):
            for name in names:
                if name and name not in self.evaluations:
                    raise ConfigError(key, f"{name!r} is none of the evaluations {', '.join(self.evaluations)}")


def main(config: ReportConfig) -> None:
    out = Path(config.out)
    _refuse_other_files(out)
    names = list(config.evaluations)
    evaluations = [Evaluation(name, folder, config.scores.get(name, [])) for name, folder in config.evaluations.items()]
    findings = summarise(evaluations, config.baseline or names[0], config.treatment or names[-1], config.level)
    runs = [read_run(name, folder) for name, folder in config.training.items()]
    minutes = read_stages(config.stages) if config.stages else {}
    options = report_page.PageOptions(
        title=config.title,
        about=config.about,
        tasks=config.trajectories,
        page_characters=config.page_characters,
        max_bytes=int(config.max_megabytes * 1e6),
        metrics=tuple(config.metrics),
    )
    quality = read_quality(config.critics) if config.critics else None
    page = report_page.render(options, evaluations, findings, runs, minutes, quality)
    write_atomically(out, page.encode())
    rounded = {name: round(value, 2) for name, value in minutes.items()}
    summary = msgspec.structs.replace(findings.summary, minutes=rounded, seed=config.seed)
    if config.summary:
        summaries.write(config.summary, summary)
    if config.table:
        write_atomically(Path(config.table), _csv(summary).encode())
    print(table(summary))
    print(f"report: {out} ({len(page.encode()) / 1e6:.1f} MB)")


def _refuse_other_files(out: Path) -> None:
    """Raises UserError if the file exists and is not an older report."""
    if out.is_dir():
        raise ConfigError("out", f"{out} is a folder; expected the path of an HTML file")
    if out.exists() and report_page.MARKER.encode() not in out.read_bytes()[:200]:
        raise ConfigError("out", f"{out} exists and is not a report; choose another name")


def _csv(summary: Summary) -> str:
    rows = to_rows(summary)
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def needs(config: ReportConfig, found: Needs) -> None:
    for name, folder in config.evaluations.items():
        found.input(f"evaluations.{name}", folder)
    for name, paths in config.scores.items():
        for number, path in enumerate(paths):
            found.input(f"scores.{name}.{number}", path)
    for name, folder in config.training.items():
        found.input(f"training.{name}", folder)
    found.input("critics", config.critics)
    found.input("stages", config.stages)
    for key in ("out", "summary", "table"):
        found.output(key, getattr(config, key), SIZE)
    with found.attempt("out"):
        _refuse_other_files(Path(config.out))


COMMAND = commands.Command("report", main, ReportConfig, __doc__, flags=("out",), needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
