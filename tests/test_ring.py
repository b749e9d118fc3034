"""The whole loop in miniature: the demo's own stages, every one a process, with a few episodes in real Chromium."""

import dataclasses

import pytest

from mira_jax import phases
from mira_jax.config import load
from mira_jax.models import huggingface
from mira_jax.stages import PhasesConfig
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.records import Status
from mira_jax.trajectories.shards import ShardReader

EPISODES = "{out}/exploration-labelled"
DEMONSTRATIONS = "{out}/demonstrations-labelled"
SMALL = {
    "demonstrate": {"episodes": 12, "policy.habits": {"forgets_coupon": 0.3}},
    "sft": {"updates": 12, "model.sizes": {"width": 32, "layers": 2, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64}},
    "explore": {"episodes": 6, "limits.horizon": 3},
    # So young a policy succeeds at nothing: the demonstrations stand in for its successes.
    "critic": {"updates": 4, "data.folders": [EPISODES, DEMONSTRATIONS]},
    "score": {"episodes": [EPISODES, DEMONSTRATIONS]},
    "mira": {"updates": 4, "data.folders": [EPISODES, DEMONSTRATIONS]},
    "filtered-bc": {"updates": 4, "data.folders": [EPISODES, DEMONSTRATIONS]},
    "evaluate-sft": {"episodes": 6, "limits.horizon": 2},
    "evaluate-filtered-bc": {"episodes": 6, "limits.horizon": 2},
    "evaluate-mira": {"episodes": 6, "limits.horizon": 2},
}


@pytest.mark.ring
@pytest.mark.timeout(600)
def test_the_demo_in_miniature(tmp_path, capfd):
    demo = load(PhasesConfig, "configs/demo/phases.yaml", [f"out={tmp_path / 'run'}", "seed=5"])
    stages = [dataclasses.replace(stage, set=stage.set | SMALL.get(stage.name, {})) for stage in demo.stages]
    assert set(SMALL) <= {stage.name for stage in stages}
    config = dataclasses.replace(demo, stages=stages)
    phases.main(config)
    run = tmp_path / "run"

    summary = summaries.read(run / "summary.json")
    assert set(summary.methods) == {"sft", "filtered_bc", "mira"}
    assert all(method.success_rate.tasks == 6 for method in summary.methods.values())
    pairs = [(one.treatment, one.baseline) for one in summary.comparisons]
    assert pairs == [("mira", "sft"), ("mira", "filtered_bc"), ("filtered_bc", "sft")]
    assert all(one.wins + one.losses + one.ties == 6 for one in summary.comparisons)
    assert set(summaries.read(run / "evaluations" / "mira" / "summary.json").methods) == {"mira"}
    assert set(summary.minutes) == {stage.name for stage in stages} - {"report"} and summary.seed == 5
    assert "mira against filtered_bc" in capfd.readouterr().out

    demonstrations = ShardReader(run / "demonstrations-labelled")
    assert len(demonstrations) == 12 and all(episode.status is Status.FINISHED for episode in demonstrations)
    assert sum(episode.success for episode in demonstrations) >= 6
    assert len(ShardReader(run / "exploration-labelled")) == 6
    assert huggingface.load(run / "export").config.layers == 2
    assert b"<script src" not in (run / "report.html").read_bytes()

    phases.main(config)
    again = capfd.readouterr()
    assert again.err.count("done before") == len(stages) - 1 and "mira against filtered_bc" in again.out
