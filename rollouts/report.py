"""Writes one HTML page that shows what a set of evaluations says.

The page needs nothing but itself: it opens from a file, in any browser, without a network.

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
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.summary import Summary
from rollouts.analysis.evaluation import Evaluation, read_run, read_stages
from rollouts.analysis.summary import summarise, table, to_rows
from rollouts.pages import report as report_page


@dataclass(frozen=True)
class ReportConfig:
    title: str = "Web agents, evaluated"
    """Of the page."""
    about: str = ""
    """A sentence or two under the title: what was done, and what a reader should know of it."""
    evaluations: dict[str, str] = field(default_factory=dict)
    """Method to folder, in the order shown: what `mira evaluate` wrote, or labelled shards. All of the same tasks."""
    baseline: str = ""
    """A name in `evaluations`; the first if empty."""
    treatment: str = ""
    """A name in `evaluations`, whose comparison with the baseline comes first; the last if empty."""
    scores: dict[str, list[str]] = field(default_factory=dict)
    """Method to side tables with `value` and `potential` for its episodes (`mira score`)."""
    training: dict[str, str] = field(default_factory=dict)
    """Name to run folder with `metrics.jsonl`, in the order shown."""
    metrics: list[str] = field(default_factory=list)
    """Metrics to draw of each run; empty: up to six, losses first."""
    seed: Natural | None = None
    """Of the run, for the summary."""
    stages: str = ""
    """A JSON file with the minutes of each stage, itself or under `minutes`; or the folder of stage records of `mira_jax.phases`."""
    trajectories: Natural = 6
    """Tasks shown step by step, with every method's episode of each."""
    page_characters: Natural = 4000
    """The most of a page's text shown at a step."""
    max_megabytes: Annotated[float, Meta(ge=1)] = 4.5
    """Size of the page: screenshots, then tasks, are left out to keep it."""
    level: Level = 0.95
    """Of the intervals."""
    out: str = "report.html"
    """The file to write."""
    summary: str = ""
    """Also write the numbers here, as JSON: every method, every two of them paired, the seed and the minutes (docs/formats.md)."""
    table: str = ""
    """Also write success per method and template here, as CSV."""

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
    options = report_page.Options(
        title=config.title,
        about=config.about,
        tasks=config.trajectories,
        page_characters=config.page_characters,
        max_bytes=int(config.max_megabytes * 1e6),
        metrics=tuple(config.metrics),
    )
    page = report_page.render(options, evaluations, findings, runs, minutes)
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
    """An older report may be replaced; anything else may not."""
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


COMMAND = commands.Command("report", main, ReportConfig, __doc__, flags=("out",))

if __name__ == "__main__":
    sys.exit(COMMAND.run())
