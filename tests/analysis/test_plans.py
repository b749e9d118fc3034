"""The effect of plans, and the acceptance of rubrics, against results worked out by hand and by loops."""

import json
import math
import random

import msgspec
import numpy as np
import pytest
import yaml

from mira_jax.errors import UserError
from mira_jax.trajectories.plan_grades import graded
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import write_shard
from rollouts import analyze
from rollouts.analysis import plans, rubric
from rollouts.analysis.grades import weighted_kappa
from rollouts.analysis.statistics import newcombe, task_rate
from rollouts.labels import rubrics
from tests.labels.planned import grades, planned, rule_grade

HALF = rule_grade(5, order=2, subgoal_coverage=2)
"""24 of 30."""


def labelled(number, right, success, template="chain_3", attempt=0, forced="", grade=None):
    one = planned(number, right=right, success=success, template=template, attempt=attempt)
    policy = msgspec.structs.replace(one.policy, forced_plan=forced)
    grade = grade or (rule_grade() if right else HALF)
    return msgspec.structs.replace(one, plan_grade=grade, policy=policy, id=f"{one.id}{forced}")


EPISODES = [
    *(labelled(number, True, number < 3) for number in range(4)),
    *(labelled(number, False, number < 5, "chain_2") for number in range(4, 8)),
]


def test_success_given_right_and_wrong_plans():
    # Right: 3 of 4. Wrong: 1 of 4. Successes: 1, 1, 1 and 0.8. Failures: 1, 0.8, 0.8, 0.8.
    found = plans.analyse(EPISODES)
    assert (found.episodes, found.tasks, found.without, found.grader, found.rubric) == (8, 8, 0, "rule", "seeking 1")
    assert (found.overall.right.mean, found.overall.wrong.mean) == (0.75, 0.25)
    assert found.overall.difference.value == 0.5
    # Wilson's interval of 3 of 4 is (0.3006, 0.9544), and Newcombe's of the difference with 1 of 4 follows from both.
    assert (found.overall.right.low, found.overall.right.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    half = math.hypot(0.75 - 0.3006, 0.6994 - 0.25)
    assert found.overall.difference.low == pytest.approx(0.5 - half, abs=1e-3)
    assert found.figures["successes"].value == pytest.approx(0.95) and found.figures["failures"].value == pytest.approx(0.85)
    # Of 16 pairs of a success and a failure, the success has the larger grade in 9, and an equal one in 3 + 3.
    assert found.figures["auroc"].value == pytest.approx((9 + 6 / 2) / 16)
    assert set(found.by_template) == {"chain_2", "chain_3"} and found.by_template["chain_3"].wrong is None
    assert math.isnan(found.by_template["chain_3"].difference.value) and found.forced is None


def test_newcombe_s_published_example():
    # Newcombe 1998, table II, method 10: 56 of 70 less 48 of 80.
    first, second = (task_rate([[True]] * hits + [[False]] * (n - hits)) for hits, n in ((56, 70), (48, 80)))
    assert newcombe(first, second) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_attempts_at_one_task_are_one_task():
    many = [labelled(0, True, attempt < 2, attempt=attempt) for attempt in range(4)]
    found = plans.analyse([*many, labelled(1, True, True)])
    assert found.tasks == 2 and found.overall.right.mean == pytest.approx((0.5 + 1) / 2) and found.overall.right.attempts == 5


def test_forced_plans_are_compared_task_by_task_and_are_in_no_other_figure():
    forced = [
        *(labelled(number, True, True, forced="right") for number in range(3)),
        *(labelled(number, False, number == 0, forced="wrong") for number in range(3)),
        labelled(7, True, False, forced="right"),  # without a counterpart
    ]
    found = plans.analyse([*EPISODES, *forced])
    assert found.overall == plans.analyse(EPISODES).overall and found.episodes == 8
    assert found.forced_tasks == 3 and found.forced.right.mean == 1 and found.forced.wrong.mean == pytest.approx(1 / 3)
    assert found.forced.difference.value == pytest.approx(2 / 3)
    assert "forced plans" in plans.table(found) and plans.to_tree(found)["forced_tasks"] == 3
    only = plans.analyse(forced)
    assert only.episodes == 0 and only.forced_tasks == 3 and math.isnan(only.figures["auroc"].value)


def test_what_has_no_outcome_or_grade_is_counted_and_mixtures_are_refused():
    lost, bare = planned(8, status=Status.INFRA_ERROR), planned(9)
    found = plans.analyse([*EPISODES, lost, bare, msgspec.structs.replace(EPISODES[0], id="x", outcome=None)])
    assert found.episodes == 8 and found.without == 2
    with pytest.raises(UserError, match="no episode has an outcome and a grade of its plan"):
        plans.analyse([lost, bare])
    with pytest.raises(UserError, match=r"graded in several ways \(rule by seeking 1, small by ffff\)"):
        plans.analyse([*EPISODES, labelled(8, True, True, grade=rule_grade(5, source="small", rubric="ffff"))])


def test_grades_of_the_whole_plan_have_no_right_and_wrong():
    whole = msgspec.structs.replace(rule_grade(), dimensions={}, score=0.5)
    found = plans.analyse([labelled(number, True, number < 2, grade=whole) for number in range(4)])
    assert found.overall.right is None and found.overall.wrong is None and found.figures["auroc"].value == 0.5


def test_weighted_kappa_by_loops():
    draw = random.Random(0)
    pairs = [(draw.randint(0, 5), min(5, max(0, draw.randint(-1, 1) + draw.randint(0, 5)))) for _ in range(60)]
    table = np.zeros((1, 6, 6))
    for one, other in pairs:
        table[0, one, other] += 1
    observed = sum((one - other) ** 2 for one, other in pairs) / len(pairs)
    chance = sum((one - other) ** 2 for one, _ in pairs for _, other in pairs) / len(pairs) ** 2
    assert weighted_kappa(table)[0] == pytest.approx(1 - observed / chance)
    # Three items with grades (0, 0), (1, 0) and (1, 1): 1 of 3 differs, and 1/3 1/3 + 2/3 2/3 would by chance.
    small = np.array([[[1.0, 0.0], [1.0, 1.0]]])
    assert weighted_kappa(small)[0] == pytest.approx(1 - (1 / 3) / (1 / 3 * 1 / 3 + 2 / 3 * 2 / 3))
    assert math.isnan(weighted_kappa(np.array([[[3.0, 0.0], [0.0, 0.0]]]))[0])


def by_model(number, truth, noise, sha, success=None):
    """An episode with a model's grades, which differ from the truth by `noise`."""
    values = {name: min(5, max(0, value - noise)) for name, value in truth.items()}
    grade = graded(values, "small", sha)
    right = all(value == 5 for value in truth.values())
    return msgspec.structs.replace(planned(number, right=right, success=success), plan_grade=grade)


TRUTHS = [grades(5) if number % 2 else grades(number % 3, order=number % 4, economy=number % 5) for number in range(40)]


def yardsticks():
    return {
        f"chain_3-{number}-0": rubric.Yardstick(truth, all(value == 5 for value in truth.values())) for number, truth in enumerate(TRUTHS)
    }


def test_a_rubric_that_agrees_and_separates_is_accepted():
    bounds = rubric.AcceptanceConfig()
    found = rubric.analyse([by_model(n, truth, 0, "r") for n, truth in enumerate(TRUTHS)], yardsticks(), bounds)
    assert found.refused == () and found.episodes == 40 and found.grader == "small"
    assert all(one["kappa"].value == 1 and one["error"].value == 0 for one in found.dimensions.values())
    assert found.separation["auroc_right"].value == 1 == found.separation["auroc_success"].value
    assert rubric.table(found).endswith("accepted") and rubric.to_tree(found, bounds)["accepted"]


def test_a_rubric_that_does_not_is_refused_with_reasons():
    # Every grade is wrong by 2 where that is possible; the separation stays.
    bounds = rubric.AcceptanceConfig(error=1.5)
    found = rubric.analyse([by_model(n, truth, 2, "r") for n, truth in enumerate(TRUTHS)], yardsticks(), bounds)
    errors = [abs(value - max(0, value - 2)) for truth in TRUTHS for name, value in truth.items() if name == "goal_alignment"]
    assert found.dimensions["goal_alignment"]["error"].value == pytest.approx(np.mean(errors))
    assert found.separation["auroc_right"].value == 1
    assert "goal_alignment: the error is not surely at most 1.5" in found.refused
    assert rubric.table(found).splitlines()[-1].startswith("not accepted: ")
    # Without wrong plans nothing is known about the separation.
    rights = [by_model(n, truth, 0, "r") for n, truth in enumerate(TRUTHS) if n % 2]
    found = rubric.analyse(rights, yardsticks(), rubric.AcceptanceConfig())
    assert found.refused == ("auroc_right is not surely at least 0.8", "auroc_success is not surely at least 0.5")


def test_the_wrong_folders_are_named():
    model = [by_model(0, TRUTHS[0], 0, "r")]
    with pytest.raises(UserError, match="no plan has both a grade and a yardstick"):
        rubric.analyse(model, {"other": rubric.Yardstick(grades(5), True)}, rubric.AcceptanceConfig())
    with pytest.raises(UserError, match="not graded by a model with a rubric"):
        rubric.analyse([msgspec.structs.replace(model[0], plan_grade=rule_grade())], yardsticks(), rubric.AcceptanceConfig())
    with pytest.raises(UserError, match="by several models or rubrics"):
        rubric.analyse([*model, by_model(1, TRUTHS[1], 0, "other")], yardsticks(), rubric.AcceptanceConfig())
    with pytest.raises(UserError, match="truth: has no plans graded by rules"):
        rubric.by_rules(model)


def write(folder, episodes):
    write_shard(folder / "episodes-00000.array_record", episodes)
    return str(folder)


def test_the_commands_write_json_and_pages(tmp_path, capsys):
    folder = write(tmp_path / "labelled", EPISODES)
    forced = [
        write(tmp_path / kind, [labelled(n, kind == "right", n < (4 if kind == "right" else 1), forced=kind) for n in range(5)])
        for kind in ("right", "wrong")
    ]
    out, page = tmp_path / "plans.json", tmp_path / "plans.html"
    arguments = ["plans", "--folder", folder, "--out", str(out), "--page", str(page), "--set", f"forced={json.dumps(forced)}"]
    assert analyze.COMMAND.run(arguments) == 0
    said = capsys.readouterr().out
    assert "75.0 % (30.1 - 95.4)" in said and "published drops: 30.9 points on BrowseComp" in said
    tree = json.loads(out.read_text())
    assert tree["overall"]["difference"]["value"] == 0.5 and tree["by_template"]["chain_3"]["wrong"] is None
    assert tree["forced"]["difference"]["value"] == pytest.approx(0.6)
    html = page.read_text()
    assert html.count("<svg") == 1 and "Plans given, 5 tasks" in html and "<script" not in html


def test_the_acceptance_reads_people_or_rules_and_refuses_what_was_not_held_out(tmp_path, capsys):
    path = tmp_path / "rubrics" / "rubric-0001.yaml"
    rubrics.write(path, rubrics.read(rubrics.DEFAULT).dimensions)
    sha = rubrics.read(path).sha256
    model = [by_model(n, truth, 0, sha) for n, truth in enumerate(TRUTHS)]
    folder = write(tmp_path / "model", model)
    rules = [msgspec.structs.replace(one, plan_grade=rule_grade(**{**TRUTHS[n], "value": 5})) for n, one in enumerate(model)]
    truth = write(tmp_path / "rules", rules)
    people = {one.id: {"grades": {"order": TRUTHS[n]["order"]}} for n, one in enumerate(model[:20])}
    (tmp_path / "people.yaml").write_text(yaml.safe_dump({"format": 1, "plans": people}))
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    arguments = ["rubric", "--folder", folder, "--out", str(out), "--page", str(page), "--set", f"rubric={path}"]
    assert analyze.COMMAND.run([*arguments, "--truth", truth]) == 0
    assert json.loads(out.read_text())["accepted"] and "<h2>Accepted</h2>" in page.read_text()
    # People have graded one dimension of some plans: the others are not known to agree.
    assert analyze.COMMAND.run([*arguments, "--set", f"labels={tmp_path / 'people.yaml'}"]) == 1
    tree = json.loads(out.read_text())
    assert tree["episodes"] == 20 and tree["dimensions"]["order"]["kappa"]["value"] == 1 and not tree["accepted"]
    assert tree["dimensions"]["economy"]["kappa"]["value"] is None and "Not accepted" in page.read_text()
    capsys.readouterr()
    for wrong, problem in (
        ([*arguments], "truth: name a folder of plans graded by rules (plan.kind=suite), or in labels grades of people; not both"),
        ([*arguments[:-2], "--truth", truth], "rubric: name the file by which the plans were graded"),
        ([*arguments[:-1], f"rubric={rubrics.DEFAULT}", "--truth", truth], "is not the rubric by which the plan of"),
    ):
        assert analyze.COMMAND.run(wrong) == 2
        assert problem in capsys.readouterr().err
    task = f"{model[3].task.id}|{model[3].task.seed}"
    origin = {"format": 1, "made_from": {}, "episodes": [], "tasks": [task], "insights": [], "reason": ""}
    path.with_suffix(".json").write_text(json.dumps(origin))
    assert analyze.COMMAND.run([*arguments, "--truth", truth]) == 2
    assert f"was made from episodes of {model[3].task.id}; grade episodes of other tasks" in capsys.readouterr().err
