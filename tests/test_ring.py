"""The whole loop in miniature: the demo's own stages, every one a process, with an evaluation in real Chromium."""

import dataclasses
import itertools

import pytest

from mira_jax import phases
from mira_jax.config import load
from mira_jax.models import huggingface
from mira_jax.stages import PhasesConfig
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader

LEARNERS = ["critic-0", "critic-1", "potential-0", "potential-1", "filtered-bc", "mira", "recommended"]
EVALUATIONS = ["evaluate-sft", "evaluate-filtered-bc", "evaluate-mira", "evaluate-recommended", "evaluate-in-chromium"]
SMALL = {
    "demonstrate-first": {"episodes": 12},
    "first": {"updates": 12, "model.sizes": {"width": 32, "layers": 2, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64}},
    "demonstrate": {"episodes": 12},
    "sft": {"updates": 2},
    # So young a policy succeeds at nothing: an expert with a bad habit explores in its place, and needs no server.
    "explore": {"episodes": 12, "policy.kind": "expert", "policy.habits": {"takes_first_other": 0.1}},
    "first-critic": {"updates": 2},
    **{name: {"updates": 2} for name in LEARNERS},
    "recommended": {"updates": 2, "data.accept_weak_critics": True},
    **{name: {"episodes": 4, "limits.horizon": 2} for name in EVALUATIONS},
}


@pytest.mark.ring
@pytest.mark.timeout(1200)
def test_the_demo_in_miniature(tmp_path, capfd):
    demo = load(PhasesConfig, "configs/demo/phases.yaml", [f"out={tmp_path / 'run'}", "seed=5"])
    stages = [
        dataclasses.replace(stage, set=stage.set | SMALL.get(stage.name, {}), serve=stage.serve if stage.name in EVALUATIONS else None)
        for stage in demo.stages
    ]
    assert set(SMALL) <= {stage.name for stage in stages}
    config = dataclasses.replace(demo, stages=stages)
    phases.main(config)
    run = tmp_path / "run"

    summary = summaries.read(run / "summary.json")
    methods = {"sft", "filtered_bc", "mira", "recommended", "recommended_in_chromium"}
    assert set(summary.methods) == methods
    assert all(method.success_rate.tasks == 4 for method in summary.methods.values())
    pairs = [(one.treatment, one.baseline) for one in summary.comparisons]
    assert {frozenset(pair) for pair in pairs} == {frozenset(pair) for pair in itertools.combinations(methods, 2)} and len(pairs) == 10
    assert pairs[:3] == [("recommended", "sft"), ("recommended", "filtered_bc"), ("recommended", "mira")]
    assert all(one.wins + one.losses + one.ties == 4 for one in summary.comparisons)
    assert set(summaries.read(run / "evaluations" / "recommended" / "summary.json").methods) == {"recommended"}
    seen = [
        {
            one.task.id: [(step.page.observation, step.response) for step in one.steps]
            for one in ShardReader(run / "evaluations" / name / "labelled")
        }
        for name in ("recommended", "recommended-in-chromium")
    ]
    assert seen[0] == seen[1]
    assert set(summary.minutes) == {stage.name for stage in stages} - {"report"} and summary.seed == 5
    assert "recommended against filtered_bc" in capfd.readouterr().out

    demonstrations = ShardReader(run / "demonstrations-labelled")
    assert len(demonstrations) == 12 and all(episode.status is Status.FINISHED for episode in demonstrations)
    explored = ShardReader(run / "exploration-labelled")
    assert len(explored) == 12 and 4 <= sum(episode.success for episode in explored) < 12
    assert huggingface.load(run / "export").config.layers == 2
    assert b"<script src" not in (run / "report.html").read_bytes()

    phases.main(config)
    again = capfd.readouterr()
    assert again.err.count("done before") == len(stages) - 1 and "recommended against filtered_bc" in again.out
