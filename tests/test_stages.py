"""Placeholders of stages: each phase reads what the previous one produced."""

import pytest

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.stages import PhasesConfig, expand, fill


def make(**keys):
    return build(PhasesConfig, {"out": "runs/x", "stages": [], **keys})


def stage(name, serve=None, config=None, **values):
    return {"name": name, "module": "m", "set": values} | ({"serve": serve} if serve else {}) | ({"config": config} if config else {})


def test_stages_run_before_in_and_after_the_phases():
    config = make(stages=[stage("sft")], each_phase=[stage("explore"), stage("actor")], after=[stage("report")], phases=2)
    assert [one.name for one in expand(config)] == ["sft", "explore-1", "actor-1", "explore-2", "actor-2", "report-2"]


def test_the_reference_of_a_phase_is_the_policy_of_the_previous_one():
    config = make(
        carried={"policy": {"first": "{out}/sft", "then": "{out}/phase-{phase}/actor"}},
        each_phase=[stage("actor", init_from="{carried.policy}", out="{out}/phase-{phase}/actor")],
        after=[stage("evaluate", serve={"model": "{carried.policy}", "url": "u"})],
        phases=3,
    )
    *actors, last = expand(config)
    assert [one.set["init_from"] for one in actors] == ["runs/x/sft", "runs/x/phase-1/actor", "runs/x/phase-2/actor"]
    assert [one.set["out"] for one in actors] == ["runs/x/phase-1/actor", "runs/x/phase-2/actor", "runs/x/phase-3/actor"]
    assert last.serve.model == "runs/x/phase-3/actor"


def test_lists_and_mappings_grow_by_phase():
    earlier = {"{earlier}": "{out}/{earlier}", "now": "{phase}"}
    config = make(
        each_phase=[stage("replay", folders=["{out}/d{phase}", "{out}/d{earlier}"], by=earlier, deep=[{"a": ["{earlier}"]}])],
        after=[stage("report", folders=["{out}/d{earlier}"])],
        phases=3,
    )
    one, two, three, report = (made.set for made in expand(config))
    assert one == {"folders": ["runs/x/d1"], "by": {"now": 1}, "deep": [{"a": []}]}
    assert two == {"folders": ["runs/x/d2", "runs/x/d1"], "by": {"1": "runs/x/1", "now": 2}, "deep": [{"a": [1]}]}
    assert three["folders"] == ["runs/x/d3", "runs/x/d1", "runs/x/d2"] and three["deep"] == [{"a": [1, 2]}]
    assert report == {"folders": ["runs/x/d1", "runs/x/d2", "runs/x/d3"]}


def test_phases_draw_from_seeds_of_their_own():
    config = make(
        seed=3,
        seeds={"explore": 100},
        stages=[stage("a", seed="{seeds.explore}")],
        each_phase=[stage("b", seed="{seeds.explore}", text="{seeds.explore}-{seed}")],
        after=[stage("c", seed="{seeds.explore}")],
        phases=2,
    )
    assert [one.set["seed"] for one in expand(config)] == [103, 103, 1103, 103]
    assert expand(config)[2].set["text"] == "1103-3"


def test_values_keep_their_type_and_name_configs():
    config = make(
        values={"hardware": "configs/h.yaml", "rate": 1e-6, "sizes": {"width": 8}},
        stages=[stage("a", config=["base.yaml", "{values.hardware}"], rate="{values.rate}", sizes="{values.sizes}")],
    )
    (made,) = expand(config)
    assert made.configs == ["base.yaml", "configs/h.yaml"] and made.set == {"rate": 1e-6, "sizes": {"width": 8}}


def test_a_schedule_has_a_value_for_each_phase():
    config = make(each_phase=[stage("actor", alpha="{scheduled.alpha}")], values={"alpha": [3.0, 1.0, 0]}, phases=5)
    assert [one.set["alpha"] for one in expand(config)] == [3.0, 1.0, 0, 0, 0]


def test_text_that_only_looks_like_a_placeholder_stays():
    assert fill({"a": ["{other} {out}", "{}"]}, {"{out}": "x"}) == {"a": ["{other} x", "{}"]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"stages": [stage("a", x="{phase}")]}, r"stage a uses \{phase\}, which has no value there"),
        ({"stages": [stage("a", x=["{earlier}"])]}, r"stages: stage a uses \{earlier\}, which has no value there"),
        ({"after": [stage("a", x="{phase}")]}, r"after: stage a uses \{phase\}, which has no value there"),
        ({"each_phase": [stage("a", x="{carried.b}")]}, r"each_phase: stage a uses \{carried\.b\}, but carried has no b"),
        ({"each_phase": [stage("a", x="{scheduled.b}")]}, r"uses \{scheduled\.b\}, but values has no b"),
        ({"each_phase": [stage("a", x="{scheduled.b}")], "values": {"b": []}}, r"values\.b: .* needs a list with an item for each phase"),
        ({"after": [stage("a", x="{scheduled.b}")], "values": {"b": [1]}}, "which has no value there"),
        ({"each_phase": [stage("a", x="{earlier}")]}, "stands in items of lists"),
        ({"each_phase": [stage("a", x={"y": "{earlier}"})]}, "stands in items of lists"),
        ({"each_phase": [stage("a", config="c-{phase}.yaml")]}, r"the config of stage a uses \{phase\}"),
        ({"carried": {"a": {"first": "{phase}", "then": ""}}}, r"a\.first uses \{phase\}"),
        ({"stages": [stage("a")], "after": [stage("a")]}, "same name, a"),
        ({"stages": [stage("a-1")], "each_phase": [stage("a")]}, "name of another, a-1"),
        ({"prunable": ["/tmp/x"]}, "prunable: /tmp/x is not a path below"),
        ({"prunable": ["{out}/../x"]}, "is not a path below"),
        ({"phases": 0}, "phases"),
    ],
)
def test_placeholders_without_a_value_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        make(**keys)
