"""ATIF against Harbor's own models: the files that we write are valid for them, and files that they write are read."""

import json

import msgspec
import pytest

harbor = pytest.importorskip("harbor.models.trajectories", reason="harbor needs Python 3.12; `make test-newest` installs and runs it")
from harbor.utils.trajectory_validator import TrajectoryValidator  # noqa: E402

from mira_jax.convert import COMMAND  # noqa: E402
from mira_jax.interchange import atif_format  # noqa: E402
from mira_jax.trajectories.records import Page  # noqa: E402
from mira_jax.trajectories.shards import ShardReader, write_shard  # noqa: E402
from tests.synthetic import trajectories  # noqa: E402

OURS = {"Trajectory": "Document", "ContentPart": "Part", "ObservationResult": "Result", "AudioSource": "Source"}


@pytest.mark.parametrize(
    "name",
    [
        "Trajectory",
        "Agent",
        "Step",
        "ToolCall",
        "Observation",
        "ObservationResult",
        "Metrics",
        "FinalMetrics",
        "ContentPart",
        "AudioSource",
    ],
)
def test_our_classes_have_the_fields_of_harbors(name):
    theirs = getattr(harbor, name).model_fields
    ours = {field.name: field for field in msgspec.structs.fields(getattr(atif_format, OURS.get(name, name)))}
    assert ours.keys() == theirs.keys()
    assert {key for key, field in ours.items() if field.required} == {key for key, field in theirs.items() if field.is_required()}
    assert getattr(harbor, name).model_config["extra"] == "forbid"


def test_our_files_are_valid_for_harbor(tmp_path):
    episodes = trajectories(6, infra_every=4)
    pictured = [
        msgspec.structs.replace(step, page=msgspec.structs.replace(step.page, screenshot=b"jpeg"), token_ids=(1, 2), log_probs=(-1.0, -0.5))
        for step in episodes[0].steps
    ]
    evidence = msgspec.structs.replace(episodes[0].evidence, page=Page(url="u", observation="end"))
    episodes[0] = msgspec.structs.replace(episodes[0], steps=tuple(pictured), evidence=evidence)
    episodes[1] = msgspec.structs.replace(episodes[1], steps=())
    write_shard(tmp_path / "shards" / "episodes-00000.array_record", episodes)
    out = tmp_path / "atif"
    assert COMMAND.run([str(tmp_path / "shards"), "--write", "atif", "--out", str(out)]) == 0
    validator = TrajectoryValidator()
    for path in sorted(out.glob("*.json")):
        assert validator.validate(path), validator.errors
        read = harbor.Trajectory.model_validate_json(path.read_bytes())
        assert read.to_json_dict() == json.loads(path.read_bytes())
    first = harbor.Trajectory.model_validate_json((out / f"{episodes[0].id}.json").read_bytes())
    assert first.has_multimodal_content()
    assert [step.metrics.completion_token_ids for step in first.steps if step.metrics] == [[1, 2]] * len(pictured)


def harbors(*agent_steps) -> "harbor.Trajectory":
    """A trajectory of an agent that is not ours, made by Harbor's models."""
    page = harbor.Observation(results=[harbor.ObservationResult(content="<button bid='12'>Buy</button>")])
    steps = [
        harbor.Step(step_id=1, source="user", message="Buy the lamp", timestamp="2026-01-31T12:00:00Z"),
        harbor.Step(step_id=2, source="system", message="page", observation=page),
        *(harbor.Step(step_id=number, source="agent", **fields) for number, fields in enumerate(agent_steps, 3)),
    ]
    return harbor.Trajectory(session_id="s", agent=harbor.Agent(name="other", version="2", model_name="big"), steps=steps)


def tool(name: str, number: int = 1, **arguments) -> "harbor.ToolCall":
    return harbor.ToolCall(tool_call_id=f"call_{number}", function_name=name, arguments=arguments)


def convert(tmp_path, trajectory) -> int:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "trial.json").write_text(json.dumps(trajectory.to_json_dict(), indent=2))
    return COMMAND.run([str(tmp_path / "in"), "--read", "atif", "--out", str(tmp_path / "out")])


def test_a_web_episode_of_harbors_models_is_read(tmp_path):
    after = harbor.Observation(results=[harbor.ObservationResult(source_call_id="call_1", content="thanks")])
    buy = {"message": "I buy it.", "tool_calls": [tool("click", bid="12")], "observation": after, "llm_call_count": 1}
    assert convert(tmp_path, harbors(buy, {"message": "", "tool_calls": [tool("send_msg_to_user", text="done")]})) == 0
    (episode,) = ShardReader(tmp_path / "out")
    assert [step.response for step in episode.steps] == ['do(action="Click", element="12")', 'exit(message="done")']
    assert [step.page.observation for step in episode.steps] == ["<button bid='12'>Buy</button>", "thanks"]
    assert (episode.policy.name, episode.task.intent, episode.outcome) == ("other", "Buy the lamp", None)


def test_a_terminal_episode_of_harbors_models_is_refused(tmp_path, capsys):
    two = [tool("bash_command", keystrokes="ls\n", duration=0.1), tool("mark_task_complete", 2)]
    assert convert(tmp_path, harbors({"message": "ls", "tool_calls": two[:1]})) == 2
    assert "trial.json: steps[2].tool_calls[0].function_name: 'bash_command' is no action" in capsys.readouterr().err
    (tmp_path / "in" / "trial.json").unlink()
    (tmp_path / "in").rmdir()
    assert convert(tmp_path, harbors({"message": "ls", "tool_calls": two})) == 2
    assert "trial.json: steps[2].tool_calls: 2 calls; a step of a web episode has one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
