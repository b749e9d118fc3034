"""WebArena-Lite's results in both conventions: by the paper's domains, and by sets of sites."""

from collections.abc import Mapping, Sequence

from mira_jax.trajectories.records import Task

DOMAINS = {"Reddit": "reddit", "Gitlab": "gitlab", "CMS": "shopping_admin", "Map": "map", "OSS": "shopping"}
"""The paper's five domains. Each contains only tasks on that one site; tasks on several sites are only in the average."""


def tables(tasks: Sequence[Task], successes: Mapping[str, bool]) -> str:
    """Returns both tables as text.

    Args:
        tasks: all tasks of the benchmark.
        successes: task id to whether it succeeded. Tasks that were lost or not evaluated are absent.
    """
    domains = {name: [task for task in tasks if task.sites == (site,)] for name, site in DOMAINS.items()}
    sets: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda task: (len(set(task.sites)), sorted(task.sites))):
        sets.setdefault(" + ".join(sorted(task.sites)), []).append(task)
    return "\n".join(
        [
            "As in the paper: successes among all tasks. No outcome is no success. Tasks on several sites count only in the average.",
            *_rows({**domains, "average": list(tasks)}, successes, judged_only=False),
            "",
            "By the set of sites: successes of the tasks that were judged.",
            *_rows({**sets, "all": list(tasks)}, successes, judged_only=True),
        ]
    )


def _rows(groups: Mapping[str, Sequence[Task]], successes: Mapping[str, bool], judged_only: bool) -> list[str]:
    width = max(map(len, groups))
    lines = []
    for name, group in groups.items():
        counted = [task for task in group if task.id in successes] if judged_only else group
        met = sum(successes.get(task.id, False) for task in counted)
        lines.append(f"{name:{width}}  {100 * met / len(counted):5.1f} %  {met:3d}/{len(counted)}" if counted else f"{name:{width}}      -")
        if judged_only and len(counted) < len(group):
            lines[-1] += f"  ({len(group) - len(counted)} without an outcome)"
    return lines
