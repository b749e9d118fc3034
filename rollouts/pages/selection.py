"""Selects the tasks that the report shows step by step. A fixed rule prevents hand-picking."""

from collections.abc import Mapping, Sequence

from rollouts.analysis.evaluation import Episode

ORDER = ("treatment", "baseline", "neither", "both")
"""Which of the two methods solved the task. Tasks on which they differ come first."""


def solved_by(baseline: bool, treatment: bool) -> str:
    if baseline != treatment:
        return "treatment" if treatment else "baseline"
    return "both" if treatment else "neither"


def choose(baseline: Mapping[str, Episode], treatment: Mapping[str, Episode], count: int) -> list[str]:
    """Returns at most `count` task keys to show.

    Tasks that only one method solved come first, alternating between those of the treatment and of the baseline. Tasks that
    neither or both solved follow, alternating likewise. Within a kind, templates not shown yet come first, then the order of keys.
    """
    kinds: dict[str, list[str]] = {kind: [] for kind in ORDER}
    for key in sorted(baseline.keys() & treatment.keys()):
        if baseline[key].judged and treatment[key].judged:
            kinds[solved_by(baseline[key].success, treatment[key].success)].append(key)
    chosen: list[str] = []
    for one, other in (ORDER[:2], ORDER[2:]):
        while len(chosen) < count and (kinds[one] or kinds[other]):
            for kind in (one, other):
                if kinds[kind] and len(chosen) < count:
                    key = _next(kinds[kind], [treatment[shown].template for shown in chosen], treatment)
                    kinds[kind].remove(key)
                    chosen.append(key)
    return chosen


def _next(keys: Sequence[str], shown: Sequence[str], episodes: Mapping[str, Episode]) -> str:
    return min(keys, key=lambda key: (shown.count(episodes[key].template), key))
