"""ATIF files of other agents: web episodes are read, everything else is refused by file and field."""

import json

import pytest

from mira_jax.errors import UserError
from mira_jax.interchange import atif_read, sources
from mira_jax.trajectories.records import Action, Status


def call(name: str, **arguments) -> list[dict]:
    return [{"tool_call_id": "c", "function_name": name, "arguments": arguments}]


def seen(text: str) -> dict:
    return {"results": [{"content": text}]}


def web() -> dict:
    """A web agent that calls BrowserGym's functions and answers in words."""
    steps = [
        {"source": "user", "message": "Find the price of the lamp", "timestamp": "2026-01-31T12:00:00Z"},
        {"source": "system", "message": "", "observation": seen("<a bid='3'>lamps</a>")},
        {
            "source": "agent", "message": "I open the lamps.", "reasoning_content": "Where is it?", "tool_calls": call("click", bid="3"),
            "observation": seen("lamp: $5"), "metrics": {"prompt_tokens": 10, "completion_tokens": 3, "completion_token_ids": [1, 2, 3]},
        },
        {"source": "agent", "message": "The lamp costs $5."},
    ]  # fmt: skip
    numbered = [{"step_id": number, **step} for number, step in enumerate(steps, 1)]
    return {
        "schema_version": "ATIF-v1.6",
        "session_id": "s",
        "agent": {"name": "gym", "version": "1", "model_name": "m"},
        "steps": numbered,
    }


def read(tmp_path, tree: dict):
    path = tmp_path / "foreign.json"
    path.write_text(json.dumps(tree))
    ((_, found),) = atif_read.episodes(path, sources.Foreign(split="test"), sources.Attempts())
    if isinstance(found, UserError):
        raise found
    return found


def test_a_web_episode_is_read_with_what_is_unknown_left_empty(tmp_path):
    episode = read(tmp_path, web())
    assert (episode.task.intent, episode.task.split, episode.task.horizon, episode.task.sites) == (
        "Find the price of the lamp",
        "test",
        2,
        (),
    )
    assert (episode.policy.name, episode.policy.checkpoint) == ("gym", "m")
    first, last = episode.steps
    assert first.page.observation == "<a bid='3'>lamps</a>" and first.page.url == ""
    assert first.action == Action(name="Click", element="3") and first.response == 'do(action="Click", element="3")'
    assert first.reasoning == "Where is it?\nI open the lamps."
    assert (first.tokens.prompt, first.tokens.response, first.token_ids) == (10, 3, None)
    assert last.page.observation == "lamp: $5" and last.action == Action(name="exit", argument="The lamp costs $5.")
    assert episode.status is Status.FINISHED and episode.outcome is None and episode.evidence.answer == "The lamp costs $5."


def test_text_in_our_grammar_needs_no_tool_call(tmp_path):
    tree = web()
    del tree["steps"][2]["tool_calls"]
    tree["steps"][2]["message"] = '# Note: lamps\ndo(action="Click", element="3")'
    first = read(tmp_path, tree).steps[0]
    assert first.response == '# Note: lamps\ndo(action="Click", element="3")' and first.action == Action(name="Click", element="3")
    assert first.reasoning == "Where is it?"


def test_a_step_in_words_is_kept_with_an_error(tmp_path):
    tree = web()
    tree["steps"].insert(3, {"step_id": 4, "source": "agent", "message": "Hm."})
    tree["steps"][4]["step_id"] = 5
    middle = read(tmp_path, tree).steps[1]
    assert (middle.response, middle.action, middle.error) == ("Hm.", None, "no action; expected one call")


def change(tree: dict, step: int, **fields) -> dict:
    tree["steps"][step].update(fields)
    return tree


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        (change(web(), 2, tool_calls=call("bash_command", keystrokes="ls\n")), "steps[2].tool_calls[0].function_name: 'bash_command'"),
        (change(web(), 2, tool_calls=call("click", bid="3") * 2), "steps[2].tool_calls: 2 calls"),
        (change(web(), 2, tool_calls=call("goto", url="http://x")), "steps[2].tool_calls[0]: goto has no counterpart"),
        (change(web(), 2, tool_calls=call("click", bid=[3])), "steps[2].tool_calls[0]: bid of click"),
        (change(web(), 2, tool_calls=call("do", action="Fly")), 'steps[2].tool_calls[0].arguments: unknown action "Fly"'),
        (change(web(), 2, tool_calls=call("do", action=["Click"])), "steps[2].tool_calls[0].arguments: 'action'"),
        (change(web(), 2, tool_calls=call("exit", message="5")), "steps[3]: the agent goes on"),
        (change(web(), 2, tool_calls=None, message="ls"), "steps: no step has an action in a browser"),
        (change(web(), 1, observation=None), "steps[2]: the agent acts, but no page was observed"),
        (change(web(), 0, message=""), "steps: no message of the user"),
        (change(web(), 2, is_copied_context=True), "steps[2].is_copied_context"),
        (change(web(), 2, observation={"results": [{"subagent_trajectory_ref": [{}]}]}), "steps[2].observation.results[0].subagent"),
        ({**web(), "continued_trajectory_ref": "next.json"}, "continued_trajectory_ref"),
        ({**web(), "subagent_trajectories": [{}]}, "subagent_trajectories"),
        ({**web(), "schema_version": "ATIF-v2.0"}, "schema_version: Invalid enum value 'ATIF-v2.0'"),
        ({**web(), "steps": []}, "steps: Expected `array` of length >= 1"),
        ({**web(), "extra": {"mira_jax": {"format": 2}}}, "steps[1].observation.results[0].extra: expected the url of a page"),
    ],
)
def test_what_is_no_web_episode_is_refused_by_file_and_field(tmp_path, tree, field):
    with pytest.raises(UserError) as refused:
        read(tmp_path, tree)
    assert str(refused.value).startswith(f"{tmp_path / 'foreign.json'}: {field}")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"steps": ' * 5000,
        b'"\xff"',
        b'{"agent": "\\ud800"}',
        b"\0",
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, data):
    path = tmp_path / "odd.json"
    path.write_bytes(data)
    ((_, found),) = atif_read.episodes(path, sources.Foreign(), sources.Attempts())
    assert isinstance(found, UserError) and str(found).startswith(f"{path}: ") and "\n" not in str(found)


def test_numbers_and_nesting_beyond_a_record_are_refused(tmp_path):
    """A state of our own files holds any JSON."""
    tree = web()
    tree["extra"] = {"mira_jax": {"format": 2}}
    tree["steps"][2].update(tool_calls=None, observation={"results": [{"content": "p", "extra": {"url": ""}}]})
    tree["steps"][1]["observation"] = {"results": [{"content": "p", "extra": {"url": ""}}]}
    tree["steps"][2]["extra"] = {"mira_jax": {"index": 0, "state": {"a": 2**70}}}
    tree["steps"][3]["extra"] = {"mira_jax": {"index": 1}}
    tree["extra"]["mira_jax"] |= {
        "id": "x", "policy": {"name": "p"}, "status": "horizon",
        "task": {"id": "t", "suite": "s", "sites": [], "template": "t", "split": "train", "seed": 0, "start_url": "", "horizon": 2},
    }  # fmt: skip
    with pytest.raises(UserError, match=r"foreign\.json: cannot be stored"):
        read(tmp_path, tree)
