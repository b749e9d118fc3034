"""The schema of summary.json: what is written is read, and what is damaged, older or contradicts itself is named."""

import json

import msgspec
import pytest
from msgspec.structs import replace

from mira_jax.errors import UserError
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.summary import Comparison, Intervals, Method, Rate, SeedComparison, Summary, p_value, points, verdict


def method(name, mean, low, high):
    rate = Rate(method=name, mean=mean, low=low, high=high, tasks=150, attempts=150)
    return Method(
        success_rate=rate, per_domain={"shop": rate}, per_template={"buy": rate}, pass_at_k={1: rate}, status={"finished": 150},
        infra_errors=0, failures={}, mean_steps=5.0, mean_score=mean, milestones=None, milestones_after_steps=[], seconds={}, tokens={},
        cost=None, policies=[], tasks={"shop.buy.1|1": (1, 1)},
    )  # fmt: skip


COMPARISON = Comparison(
    baseline="sft", treatment="mira", tasks=150, attempts=1, wins=13, losses=3, ties=134, difference=10 / 150, low=0.0163, high=0.1259,
    p_value=0.021270751953125, test="exact McNemar test", sided="two-sided", left_out=[],
)  # fmt: skip
SUMMARY = Summary(
    suite="arena",
    split="test",
    intervals=Intervals(level=0.95, rate="Wilson", difference="Tango"),
    methods={"sft": method("sft", 0.64, 0.561, 0.712), "mira": method("mira", 0.707, 0.629, 0.774)},
    comparisons=[COMPARISON],
)


def test_what_is_written_is_read(tmp_path):
    summaries.write(tmp_path / "summary.json", SUMMARY)
    assert summaries.read(tmp_path / "summary.json") == SUMMARY
    tree = json.loads((tmp_path / "summary.json").read_text())
    assert tree["format"] == 2 and tree["methods"]["mira"]["pass_at_k"]["1"]["tasks"] == 150


def test_a_number_that_json_has_not_is_never_written(tmp_path):
    broken = replace(SUMMARY, comparisons=[replace(COMPARISON, p_value=float("nan"))])
    with pytest.raises(ValueError, match="not JSON compliant"):
        summaries.write(tmp_path / "summary.json", broken)
    assert not (tmp_path / "summary.json").exists()


def altered(change):
    tree = json.loads(json.dumps(msgspec.to_builtins(SUMMARY, str_keys=True)))
    change(tree)
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged"),
        ("[1]", "damaged"),
        ('{"format": 2', "damaged"),
        (altered(lambda tree: tree["comparisons"][0].update(p_value=float("nan"))), "damaged"),
        ('{"success_rate": {"sft": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}}}', "no format number"),
        (altered(lambda tree: tree.pop("format")), "no format number"),
        (altered(lambda tree: tree.update(format=3)), "format 3; this version reads summaries of format 2"),
        (altered(lambda tree: tree.update(format="2")), "format '2'"),
        (altered(lambda tree: tree.pop("methods")), "missing required field `methods`"),
        (altered(lambda tree: tree.update(metods=1)), "unknown field `metods`"),
        (altered(lambda tree: tree["methods"]["sft"]["success_rate"].update(mean="64")), "$.methods[...].success_rate.mean"),
        (altered(lambda tree: tree["methods"]["sft"]["success_rate"].update(mean=None)), "success_rate.mean"),
        (altered(lambda tree: tree["methods"]["sft"]["success_rate"].update(high=0.1)), "methods.sft, success_rate: 0.64 is not within"),
        (altered(lambda tree: tree["comparisons"][0].update(wins=14)), "mira against sft: wins, losses and ties do not add up to 150"),
    ],
)
def test_a_damaged_or_older_summary_is_one_message_with_a_remedy(tmp_path, text, message):
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        summaries.read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and message in said and "mira report" in said
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read"):
        summaries.read(tmp_path / "nowhere.json")


def test_words_say_sidedness_and_interval():
    assert points(COMPARISON, 0.95) == "+6.7 points, 95 % interval +1.6 to +12.6"
    assert verdict(COMPARISON) == "13 wins, 3 losses, 134 ties; exact McNemar test, two-sided: p = 0.021"
    over = SeedComparison(
        baseline="a", treatment="b", seeds=[0], differences=[0.1], difference=0.1, low=None, high=None, interval="t", p_value=1.0,
        smallest_p=1.0, test="sign-flip", sided="two-sided",
    )  # fmt: skip
    assert points(over, 0.95) == "+10.0 points, no interval"


def test_small_p_values_are_powers_of_ten():
    assert p_value(0.5) == "0.50" and p_value(0.0312) == "0.031"
    assert p_value(2.83e-7) == "2.8\u00a0×\u00a010⁻⁷"
