"""What critics are worth: their predictions compared with outcomes, milestones and baselines that see only the template.

The predictions should be of tasks that the critic was not trained on (`recipe.folds` of the critic).
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from mira_jax.recipes.labels import StepLabels, mean_of_milestones, milestone_head
from mira_jax.rl.calibration import auroc, brier, leave_one_out, negative_log_likelihood, reliability

DIGITS = 4


def critic_quality(labels: StepLabels, columns: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Measures of V and P over the steps of sound episodes, for those columns that there are.

    value: NLL (nats), Brier score and AUROC of V(s_t) against the outcome, and a reliability curve; the same for two baselines, the
    mean outcome of the other tasks (`constant`) and of the other tasks of the same template (`template`). `weak` says in words what
    it does not beat in NLL, or is empty.

    potential, milestones: P against the share of subgoals that are done, at the last states of failures: mean absolute error,
    correlation, the error of a constant, and `by_share`, the mean of P over bins of the share. `concordance`: of two states of the same
    template, with the same number of steps taken and different numbers of subgoals done, how often the one with more has the higher P.
    0.5 is a clock.

    Args:
        columns: float [N] each, NaN where a step was not scored.
    """
    found: dict[str, dict[str, Any]] = {}
    if "value" in columns:
        found["value"] = _value_quality(labels, columns["value"])
    potentials = {"potential": columns["potential"]} if "potential" in columns else {}
    if milestone_head(0) in columns:
        potentials["milestones"] = mean_of_milestones(labels, columns)
    for name, potential in potentials.items():
        if labels.subgoals[labels.sound].any():
            found[name] = _potential_quality(labels, potential)
    return found


def weak_columns(quality: Mapping[str, Mapping[str, Any]], columns: Collection[str]) -> dict[str, str]:
    """What is weak of `quality` (see `critic_quality`) among the columns of a side table, each with the reason."""
    measured = {"milestones" if name.startswith("milestone_") else name for name in columns}
    return {name: measures["weak"] for name, measures in quality.items() if measures["weak"] and name in measured}


def _value_quality(labels: StepLabels, value: np.ndarray) -> dict[str, Any]:
    scored = labels.sound & np.isfinite(value)
    success, task = labels.success[scored], labels.task[scored]
    template = np.unique(np.array(labels.templates, object)[task].astype(str), return_inverse=True)[1]
    baselines = {
        "constant": leave_one_out(success, np.zeros_like(task), task),
        "template": leave_one_out(success, template, task),
    }
    found: dict[str, Any] = {"steps": int(scored.sum()), **_measures(value[scored], success)}
    found |= {name: _measures(p, success) for name, p in baselines.items()}
    worse = [name for name in baselines if found["nll"] >= found[name]["nll"]]
    found["reliability"] = _curve(reliability(value[scored], success))
    found["weak"] = f"its NLL {found['nll']} is not below that of the {' and the '.join(worse)} mean" if worse else ""
    return found


def _measures(p: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    values = {"nll": negative_log_likelihood(p, y), "brier": brier(p, y), "auroc": auroc(p, y)}
    return {name: _rounded(value) for name, value in values.items()}


def _potential_quality(labels: StepLabels, potential: np.ndarray) -> dict[str, Any]:
    scored = labels.sound & np.isfinite(potential) & (labels.subgoals > 0)
    ends = scored & labels.last & ~labels.success
    found: dict[str, Any] = {"steps": int(scored.sum()), "failures": int(ends.sum())}
    if ends.any():
        share, p = labels.count[ends].astype(np.float64), potential[ends].astype(np.float64)
        spread = float(p.std()) * float(share.std())
        found |= {
            "mae": _rounded(float(np.abs(p - share).mean())),
            "mae_of_constant": _rounded(float(np.abs(share - np.median(share)).mean())),
            "correlation": _rounded(float(np.mean((p - p.mean()) * (share - share.mean())) / spread)) if spread > 1e-12 else None,
            "mean": _rounded(float(p.mean())),
            "true_mean": _rounded(float(share.mean())),
            "by_share": _curve(reliability(share, p)),
        }
    found["concordance"] = _concordance(labels, potential, scored)
    found["weak"] = ""
    if ends.any() and found["mae"] >= found["mae_of_constant"]:
        found["weak"] = f"at the last states of failures it is {found['mae']} from the share done, a constant {found['mae_of_constant']}"
    return found


def _concordance(labels: StepLabels, potential: np.ndarray, scored: np.ndarray) -> float | None:
    templates = np.unique(np.array(labels.templates, object).astype(str), return_inverse=True)[1][labels.task]
    done = labels.done.sum(axis=1)
    groups = np.unique(np.stack([templates, labels.numbers], axis=1)[scored], axis=0)
    total = weight = 0.0
    for template, number in groups:
        here = scored & (templates == template) & (labels.numbers == number)
        for count in np.unique(done[here])[:-1]:
            rest = here & (done >= count)
            more = done[rest] > count
            pairs = float(more.sum()) * float((~more).sum())
            total += pairs * auroc(potential[rest], more)
            weight += pairs
    return _rounded(total / weight) if weight else None


def _curve(bins: Iterable[tuple[float, float, int]]) -> list[list[float]]:
    return [[round(x, DIGITS), round(y, DIGITS), count] for x, y, count in bins]


def _rounded(value: float) -> float | None:
    return round(value, DIGITS) if np.isfinite(value) else None


def describe(quality: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for people."""
    lines = []
    if value := quality.get("value"):
        for name, row in (("V", value), ("constant", value["constant"]), ("template mean", value["template"])):
            area = "" if row["auroc"] is None else f", AUROC {row['auroc']:.3f}"
            lines.append(f"{name}: NLL {row['nll']:.3f}, Brier {row['brier']:.3f}{area}")
    for name in ("potential", "milestones"):
        if (row := quality.get(name)) and row["failures"]:
            correlation = "" if row["correlation"] is None else f", correlation {row['correlation']:.2f}"
            share = row["concordance"]
            order = "" if share is None else f"; states with more done have a higher P in {100 * share:.0f} % of pairs"
            lines.append(
                f"P ({name}) at the last states of {row['failures']} failures: {row['mean']:.2f} where {row['true_mean']:.2f} is done, "
                f"error {row['mae']:.3f} (constant {row['mae_of_constant']:.3f}){correlation}{order}"
            )
    return lines + [f"weak: {name}: {row['weak']}" for name, row in quality.items() if row["weak"]]
