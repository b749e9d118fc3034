"""Which tasks the report shows step by step: by rule, so that nobody picks the pleasant ones."""

from collections.abc import Mapping, Sequence

from rollouts.analysis.evaluation import Episode

ORDER = ("treatment", "baseline", "neither", "both")
"""Who solved the task: first those where the two methods differ."""


def solved_by(baseline: bool, treatment: bool) -> str:
    if baseline != treatment:
        return "treatment" if treatment else "baseline"
    return "both" if treatment else "neither"


def choose(baseline: Mapping[str, Episode], treatment: Mapping[str, Episode], count: int) -> list[str]:
    """Task keys to show, at most `count`.

    Tasks that only one of the two solved come first, in turn one that the treatment solved and one that the
    baseline solved; then those that neither and both solved, in turn. Within a kind, templates not shown yet
    come first, then the order of keys.
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
