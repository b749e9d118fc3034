"""Agreement of an outcome reward model (ORM) with the rules of the suite, over episodes.

The episodes should be of tasks that the model was not trained on (`recipe.folds` of the ORM).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mira_jax.classification import confusion
from mira_jax.intervals import share_interval
from mira_jax.recipes.labels import task_key
from mira_jax.rl.calibration import auroc, negative_log_likelihood
from mira_jax.trajectories.records import Status, Trajectory

THRESHOLD = 0.5
DIGITS = 4
RATES = ("accuracy", "precision", "recall")


def agreement(episodes: Sequence[Trajectory], probability: np.ndarray) -> dict[str, Any]:
    """Measures of the probability of success against the outcomes that were decided by rule. {} if there are none.

    Accuracy, precision and recall of the decision p >= `THRESHOLD` with 95 % intervals (Wilson, clustered by task), F1, the confusion
    table, and AUROC and NLL (nats) of p. `constant` is the accuracy of the more frequent outcome. `weak` says in words that the
    accuracy is not above it, or is empty. A measure that does not exist is None.

    Args:
        probability: float [episodes], NaN for episodes that were not scored.
    """
    by_rule = [episode.outcome is not None and episode.outcome.source == "rule" for episode in episodes]
    sound = [episode.status is not Status.INFRA_ERROR for episode in episodes]
    which = np.array(by_rule, bool) & np.array(sound, bool) & np.isfinite(probability)
    if not which.any():
        return {}
    chosen = [episode for episode, chosen in zip(episodes, which, strict=True) if chosen]
    truth = np.array([episode.success for episode in chosen])
    task = np.unique([task_key(episode.task) for episode in chosen], return_inverse=True)[1]
    p = probability[which]
    decided = p >= THRESHOLD
    counts = confusion(decided, truth)
    every = np.ones(len(truth), bool)
    found: dict[str, Any] = {
        "episodes": len(truth),
        "tasks": len(set(task)),
        "threshold": THRESHOLD,
        "success_rate": _rounded(truth.mean()),
    }
    for name, among in zip(RATES, (every, decided, truth), strict=True):
        interval = share_interval((decided == truth)[among], task[among]) if among.any() else None
        found[name] = {"value": _rounded(getattr(counts, name)), "interval": interval and [_rounded(end) for end in interval]}
    found |= {"f1": _rounded(counts.f1), "auroc": _rounded(auroc(p, truth)), "nll": _rounded(negative_log_likelihood(p, truth))}
    found |= {"confusion": counts._asdict(), "constant": _rounded(max(truth.mean(), 1 - truth.mean()))}
    worse = found["accuracy"]["value"] <= found["constant"]
    found["weak"] = f"its accuracy {found['accuracy']['value']} is not above that of a constant, {found['constant']}" if worse else ""
    return found


def _rounded(value: float | np.ndarray) -> float | None:
    return round(float(value), DIGITS) if np.isfinite(value) else None


def describe(found: Mapping[str, Any]) -> list[str]:
    """Lines for people."""
    counts, area = found["confusion"], found["auroc"]
    f1 = "" if found["f1"] is None else f", F1 {found['f1']:.3f}"
    lines = [
        f"against rules on {found['episodes']} episodes of {found['tasks']} tasks: "
        + ", ".join(f"{name} {_with_interval(found[name])}" for name in RATES)
        + f"{f1}{'' if area is None else f', AUROC {area:.3f}'}; a constant has accuracy {found['constant']:.3f}",
        "                 rule: success   rule: failure",
        f"ORM: success     {counts['true_positives']:13}   {counts['false_positives']:13}",
        f"ORM: failure     {counts['false_negatives']:13}   {counts['true_negatives']:13}",
    ]
    return lines + ([f"weak: {found['weak']}"] if found["weak"] else [])


def _with_interval(rate: Mapping[str, Any]) -> str:
    return "undefined" if rate["value"] is None else f"{rate['value']:.3f} [{rate['interval'][0]:.3f}, {rate['interval'][1]:.3f}]"
