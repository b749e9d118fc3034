"""Simulates how often the intervals cover the true value and how often the tests reject it, in comparison with the methods that they
replace.

    python benchmarks/coverage.py                     # every table of docs/statistics.md, as Markdown
    python benchmarks/coverage.py --repeats 2000 --only rates seeds

Each task has a probability of success, drawn from a beta distribution with the given mean and correlation between attempts
(0: all tasks are alike; 1: a task is solved always or never). Needs only NumPy.
"""

import argparse
import datetime
import itertools
import math
import platform
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from rollouts.analysis import statistics
from rollouts.analysis.statistics import difference_interval, rate_interval, sign_flip

TASKS = (40, 80, 150, 300)
ATTEMPTS = (1, 4, 8)
RATES = (0.03, 0.1, 0.3, 0.5, 0.9)
CORRELATIONS = (0.0, 0.1, 0.3, 0.6, 0.9)
SEED_SPREAD = 0.05
"""Standard deviation of a method's success over training seeds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", choices=sorted(TABLES), default=list(TABLES))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    print(f"{arguments.repeats} repeats, seed {arguments.seed}; {datetime.date.today()}, {machine}")
    for name in arguments.only:
        print(f"\n### {name}\n")
        for number, row in enumerate(TABLES[name](np.random.default_rng(arguments.seed), arguments.repeats)):
            print(f"| {' | '.join(row)} |", flush=True)
            if number == 0:
                print("|" + "---|" * len(row))
    return 0


def rates(rng: np.random.Generator, repeats: int) -> Iterator[list[str]]:
    """Coverage of the 95 % interval of a success rate."""
    yield ["tasks", "attempts", "rate", *(f"correlation {one:g}" for one in CORRELATIONS), "Wilson over episodes, at the worst"]
    for tasks, attempts, rate in itertools.product(TASKS, ATTEMPTS, RATES):
        cells, old = [], []
        for correlation in CORRELATIONS[: 1 if attempts == 1 else None]:
            successes, _ = draw(rng, tasks, attempts, rate, correlation, repeats)
            cells.append(coverage(rate_interval(successes / attempts), rate))
            old.append(coverage(statistics.wilson(successes.sum(-1), tasks * attempts), rate))
        yield [
            str(tasks),
            str(attempts),
            f"{rate:g}",
            *map(percent, cells),
            *["same"] * (len(CORRELATIONS) - len(cells)),
            percent(min(old)),
        ]


def pass_at_k(rng: np.random.Generator, repeats: int) -> Iterator[list[str]]:
    """Coverage of the 95 % interval of pass@k with 8 attempts per task."""
    ks = (1, 2, 4, 8)
    yield ["tasks", "rate", "correlation", *(f"pass@{k}" for k in ks)]
    tables = {k: np.array([statistics.pass_at_k(8, count, k) for count in range(9)]) for k in ks}
    for tasks, rate, correlation in itertools.product((40, 150), (0.03, 0.1, 0.5), (0.1, 0.3, 0.6)):
        successes, _ = draw(rng, tasks, 8, rate, correlation, repeats)
        cells = (coverage(rate_interval(table[successes]), 1 - never(rate, correlation, k)) for k, table in tables.items())
        yield [str(tasks), f"{rate:g}", f"{correlation:g}", *map(percent, cells)]


def differences(rng: np.random.Generator, repeats: int) -> Iterator[list[str]]:
    """Coverage of the 95 % interval of a paired difference, and of the percentile bootstrap's interval.

    Both methods have the same tasks. `kept` is the fraction of tasks for which the treatment has the baseline's probability, apart
    from the gain. For the other tasks it is redrawn with the same mean.
    """
    yield ["tasks", "attempts", "rate", "gain", *(f"correlation {c:g}, kept {k:g}" for c, k in CASES), "bootstrap, at the worst"]
    for tasks, attempts, rate, gain in itertools.product((40, 150), ATTEMPTS, (0.1, 0.5, 0.85), (0.0, 0.1)):
        cells, old = [], []
        for correlation, kept in CASES:
            values = pairs(rng, tasks, attempts, rate, gain, correlation, kept, repeats)
            cells.append(coverage(difference_interval(values), gain))
            old.append(coverage(bootstrap(rng, values[: repeats // 10]), gain))
        yield [str(tasks), str(attempts), f"{rate:g}", f"{gain:g}", *map(percent, cells), percent(min(old))]


def paired_test(rng: np.random.Generator, repeats: int) -> Iterator[list[str]]:
    """How often p < 0.05 if the two methods are equal: at every task (kept 1), or only on average."""
    yield ["tasks", "attempts", "rate", *(f"correlation {c:g}, kept {k:g}" for c, k in CASES)]
    for tasks, attempts, rate in itertools.product((40, 150), ATTEMPTS, (0.1, 0.5)):
        cells = []
        for correlation, kept in CASES:
            values = pairs(rng, tasks, attempts, rate, 0.0, correlation, kept, repeats // 5)
            found = [sign_flip([Fraction(one, attempts) for one in row]) < 0.05 for row in np.rint(values * attempts).astype(int).tolist()]
            cells.append(float(np.mean(found)))
        yield [str(tasks), str(attempts), f"{rate:g}", *map(percent, cells)]


def seeds(rng: np.random.Generator, repeats: int) -> Iterator[list[str]]:
    """How often a test finds a difference between two methods that are equal on average over training seeds.

    Each seed gives each method its own success rate, with a standard deviation of `SEED_SPREAD`, on 150 tasks of correlation 0.6.
    Pooled: McNemar's test over the tasks of all seeds. Ours: the test over the differences per seed.
    """
    yield ["seeds", "pooled, p < .05", "pooled, p < .01", "sign-flip over seeds, p < .05", "t interval over seeds excludes 0"]
    repeats, tasks = repeats // 5, 150
    for count in (2, 3, 5, 8):
        pooled, flips, outside = [], [], []
        for _ in range(repeats):
            chances = beta(rng, 0.6, 0.6, (1, tasks))
            wins = losses = 0
            found = []
            for _ in range(count):
                first, second = (rng.random(tasks) < shifted(chances[0], rng.normal(0, SEED_SPREAD)) for _ in range(2))
                won, lost = int((second & ~first).sum()), int((first & ~second).sum())
                wins, losses = wins + won, losses + lost
                found.append(Fraction(won - lost, tasks))
            pooled.append(sign_flip([Fraction(1)] * wins + [Fraction(-1)] * losses or [Fraction(0)]))
            flips.append(sign_flip(found))
            interval = statistics.t_interval([float(one) for one in found])
            outside.append(interval is not None and not interval[0] <= 0 <= interval[1])
        cells = (np.mean(np.array(pooled) < 0.05), np.mean(np.array(pooled) < 0.01), np.mean(np.array(flips) < 0.05), np.mean(outside))
        yield [str(count), *map(percent, map(float, cells))]


TABLES: dict[str, Callable[[np.random.Generator, int], Iterator[list[str]]]] = {
    "rates": rates, "pass_at_k": pass_at_k, "differences": differences, "paired_test": paired_test, "seeds": seeds
}  # fmt: skip
CASES = ((0.1, 1.0), (0.3, 1.0), (0.6, 1.0), (0.3, 0.7), (0.6, 0.7))
"""(correlation, kept)"""


def draw(
    rng: np.random.Generator, tasks: int, attempts: int, rate: float, correlation: float, repeats: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws (successes, their probabilities), both [repeats, tasks]."""
    chances = beta(rng, rate, correlation, (repeats, tasks))
    return rng.binomial(attempts, chances), chances


def beta(rng: np.random.Generator, mean: float, correlation: float, shape: tuple[int, ...]) -> np.ndarray:
    if correlation == 0:
        return np.full(shape, mean)
    size = 1 / correlation - 1
    return rng.beta(mean * size, (1 - mean) * size, size=shape)


def pairs(
    rng: np.random.Generator, tasks: int, attempts: int, rate: float, gain: float, correlation: float, kept: float, repeats: int
) -> np.ndarray:
    """[repeats, tasks]: the treatment's fraction of successful attempts minus the baseline's."""
    first, chances = draw(rng, tasks, attempts, rate, correlation, repeats)
    better = chances + gain / (1 - rate) * (1 - chances)
    afresh = beta(rng, rate + gain, correlation, chances.shape)
    second = rng.binomial(attempts, np.where(rng.random(chances.shape) < kept, better, afresh))
    return (second - first) / attempts


def shifted(chances: np.ndarray, by: float) -> np.ndarray:
    """Moves the mean by `by`: each probability moves by the same fraction of its distance to 1, or to 0."""
    mean = float(chances.mean())
    return chances + by / (1 - mean) * (1 - chances) if by > 0 else chances * (1 + by / mean)


def never(rate: float, correlation: float, k: int) -> float:
    """E (1 - p)^k of the beta distribution."""
    size = 1 / correlation - 1
    return math.prod(((1 - rate) * size + i) / (size + i) for i in range(k))


def bootstrap(rng: np.random.Generator, values: np.ndarray, resamples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap, over tasks, of each row's mean."""
    ends = []
    for row in values:
        distinct, counts = np.unique(row, return_counts=True)
        means = rng.multinomial(len(row), counts / len(row), size=resamples) @ distinct / len(row)
        ends.append(np.quantile(means, [0.025, 0.975]))
    return np.array(ends)[:, 0], np.array(ends)[:, 1]


def coverage(interval: tuple[np.ndarray, np.ndarray], truth: float) -> float:
    low, high = interval
    return float(np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high)))


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    sys.exit(main())
