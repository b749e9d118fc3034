"""Phases in miniature: the policy of the study, and two phases of configs/phases/tours.yaml, every stage a process."""

import dataclasses
import json

import numpy as np
import pytest

from mira_jax import phases
from mira_jax.config import load
from mira_jax.stages import PhasesConfig, expand
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.side_tables import SideTable
from rollouts.suites import task_list

SIZES = {"width": 32, "layers": 2, "query_heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64}
POLICY = {
    "demonstrate-first": {"episodes": 8},
    "first": {"updates": 12, "model.sizes": SIZES},
    "demonstrate": {"episodes": 8},
    "sft": {"updates": 2},
    "first-critic": {"updates": 2},
}
SMALL = {
    "evaluate-sft": {"episodes": 4, "limits.horizon": 2},
    # So young a policy succeeds at nothing: an expert with a bad habit explores in its place, and needs no server.
    "explore": {"episodes": 8, "policy.kind": "expert", "policy.habits": {"takes_first_other": 0.1}},
    "replay": {"highest": 1e9},
    "critic-0": {"epochs": 1, "early_stopping.every": 1},
    "critic-1": {"epochs": 1, "early_stopping.every": 1},
    "actor": {"epochs": 1},
    "evaluate": {"episodes": 4, "limits.horizon": 2},
    "propose": {"count": 8},
    "choose": {"lowest": 0.0, "highest": 1.0, "count": 4},
}


def small(stages, settings, keep_servers=False):
    assert set(settings) & {stage.name for stage in stages}
    return [
        dataclasses.replace(
            stage, set=stage.set | settings.get(stage.name, {}), serve=None if stage.name == "explore" and not keep_servers else stage.serve
        )
        for stage in stages
    ]


@pytest.mark.ring
@pytest.mark.timeout(1200)
def test_two_phases_in_miniature(tmp_path, capfd):
    policy = load(PhasesConfig, "configs/study/policy.yaml", [f"out={tmp_path / 'policy'}", "seed=3"])
    phases.main(dataclasses.replace(policy, stages=small(policy.stages, POLICY)))
    values = [f"values.policy={tmp_path}/policy/sft", f"values.critic={tmp_path}/policy/first-critic"]
    tours = load(PhasesConfig, "configs/phases/tours.yaml", [f"out={tmp_path / 'run'}", "phases=2", "prune=true", "seed=3", *values])
    config = dataclasses.replace(tours, stages=small(tours.stages, SMALL), each_phase=small(tours.each_phase, SMALL))
    assert set(SMALL) <= {stage.name for stage in [*config.stages, *config.each_phase]}
    phases.main(config)
    run = tmp_path / "run"

    summary = summaries.read(run / "summary.json")
    assert set(summary.methods) == {"sft", "phase_1", "phase_2"} and summary.seed == 3
    assert set(summary.minutes) == {stage.name for stage in expand(config)} - {"report-2"}
    # Phase 2 attempts the tasks that phase 1 has chosen.
    chosen = task_list.read(run / "phase-1" / "tasks.json").tasks
    assert {task.id for task in chosen} == {episode.task.id for episode in ShardReader(run / "phase-2" / "labelled")}
    assert not {task.id for task in chosen} & {episode.task.id for episode in ShardReader(run / "phase-1" / "labelled")}
    # The first phase replays nothing, the second successes of the first.
    assert len(ShardReader(run / "phase-1" / "replay")) == 0
    replayed = ShardReader(run / "phase-2" / "replay")
    first = {episode.id: episode for episode in ShardReader(run / "phase-1" / "labelled")}
    assert replayed and all(episode.success and first[episode.id] == episode for episode in replayed)
    keep = SideTable.read(run / "phase-2" / "replay" / "selection.npz").columns["keep"]
    assert 0 < keep.sum() <= 2 * ShardReader(run / "phase-2" / "labelled").steps_per_record.sum()
    # pi_ref of phase 2 is the actor of phase 1.
    (reference,) = SideTable.read(run / "phase-2" / "reference" / "policy.npz").made_by
    assert reference.checkpoint.startswith(f"{run}/phase-1/actor@")
    assert np.isfinite(SideTable.read(run / "phase-2" / "scores" / "critic.npz").columns["milestone_10"]).all()
    # Pruned: what no stage reads any more. The policies are whole.
    assert not list(run.glob("phase-*/rollouts")) and not list(run.glob("phase-*/*/checkpoints/*/optimizer"))
    assert all(list(run.glob(f"phase-{phase}/actor/checkpoints/*/params")) for phase in (1, 2))
    assert "pruned" in capfd.readouterr().err
    assert json.loads((run / "phase-2" / "replay" / "replay.json").read_text())["counts"]["selected"] == keep.sum()

    phases.main(config)
    assert capfd.readouterr().err.count("done before") == len(expand(config))
