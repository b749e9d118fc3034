"""benchmarks/outcomes.py: differences over seeds worked out by hand, and the file that they are computed from again."""

import pytest

from benchmarks.outcomes import Outcomes, load, print_table, rates, save
from mira_jax.errors import UserError

PLAIN = {1: Outcomes("a", {"short": "0011", "long": "00"}, "x"), 2: Outcomes("b", {"short": "0001", "long": "01"})}
BETTER = {1: Outcomes("a", {"short": "1011", "long": "10"}, "x"), 2: Outcomes("b", {"short": "0111", "long": "01"})}


def test_a_table_over_seeds(capsys):
    print_table({"plain": PLAIN, "better": BETTER}, ["plain"])
    lines = capsys.readouterr().out.splitlines()
    # Differences of all tasks: 4 of 6 less 2 of 6, and 4 of 6 less 2 of 6. Of short ones: 1 of 4 and 2 of 4. t(.975, 1) = 12.706.
    assert "| better | 75.0 | 50.0 | 66.7 |" in lines
    assert "| plain | 37.5 ± 158.8 | 25.0 ± 317.7 | 33.3 |" in lines
    assert lines[-1].startswith("| better | 37.5 ± 158.8 | 25.0 ± 317.7 | 33.3 |") and lines[-1].endswith("| 0.5 |")


def test_a_file_gives_the_same_outcomes_and_keeps_those_of_other_methods_and_seeds(tmp_path):
    path = tmp_path / "study.jsonl"
    save(path, {"plain": PLAIN, "better": {1: BETTER[1]}})
    save(path, {"better": {2: BETTER[2]}})
    assert load(path) == {"plain": PLAIN, "better": BETTER}
    assert rates(load(path)["better"].values()) == {"short": [0.75, 0.75], "long": [0.5, 0.5], "all": [4 / 6, 4 / 6]}


def test_different_tasks_are_not_compared():
    other = {seed: Outcomes("c", one.by_template) for seed, one in BETTER.items()}
    with pytest.raises(UserError, match="different tasks"):
        print_table({"plain": PLAIN, "better": other}, ["plain"])


def test_methods_that_began_with_other_policies_are_not_compared():
    other = {seed: Outcomes(one.tasks, one.by_template, "y") for seed, one in BETTER.items()}
    with pytest.raises(UserError, match="began with another policy or other scores"):
        print_table({"plain": PLAIN, "better": other}, ["plain"])


@pytest.mark.parametrize("name", ["anchor", "tours", "tours-common"])
def test_recorded_results_are_of_the_same_tasks_and_start_for_all_methods(name):
    found = load(f"benchmarks/results/{name}.jsonl")
    for seed in {seed for of_seed in found.values() for seed in of_seed}:
        assert len({(of_seed[seed].tasks, of_seed[seed].start) for of_seed in found.values() if seed in of_seed}) == 1
