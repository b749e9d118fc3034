"""Episodes out to ATIF and back: the fields worked out by hand, and equality of the records for any record."""

import json

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from mira_jax.convert import COMMAND
from mira_jax.errors import UserError
from mira_jax.interchange import atif_format, atif_read, sources
from mira_jax.interchange.atif_folder import file_name, write_folder
from mira_jax.interchange.atif_write import Settings, write
from mira_jax.trajectories.prompts import PromptConfig, prompt_hash, prompt_ids, rounds
from mira_jax.trajectories.records import (
    Action,
    Evidence,
    Outcome,
    Page,
    Plan,
    Policy,
    Seconds,
    Status,
    Step,
    Subgoal,
    Task,
    TokenCounts,
    Trajectory,
)  # fmt: skip
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tokenizer import Tokenizer
from tests.synthetic import trajectories, write_tokenizer
from tests.synthetic import write_folder as write_shards

JPEG = b"\xff\xd8\xff\xe0 not really"


def full() -> Trajectory:
    """An episode in which no field has its default."""
    first = Step(
        index=0, page=Page(url="__SHOP__/", observation='<a id="1">', screenshot=JPEG), response='do(action="Click", element="1")',
        reasoning="the first link", cut=True, action=Action(name="Click", element="1"), error="the link is gone",
        state={"cart": [1, 2.0, None]}, milestones=(True, False),
        plan=Plan(subgoals=("find it",), done=(False,), current=0, stalled=True, unanswered=True),
        planner_tokens=TokenCounts(prompt=50, response=5), prompt_hash="0" * 32, token_ids=(5, 6), log_probs=(-0.5, -0.25),
        sampling_log_probs=(-0.4, -0.2), log_prob=-0.75, tokens=TokenCounts(prompt=100, response=2),
        seconds=Seconds(browser=0.5, policy=1.5, judge=0.1, planner=0.3),
    )  # fmt: skip
    second = Step(index=1, page=Page(url="__SHOP__/1", observation="lamp"), response="I am done", error="no action")
    end = Action(name="exit", argument="42")
    third = Step(index=2, page=Page(url="__SHOP__/1", observation="lamp"), response='exit(message="42")', action=end)
    return Trajectory(
        id="a/b",
        task=Task(
            id="shop.1", suite="arena", sites=("shop",), template="t", split="test", seed=7, intent="Buy it", start_url="__SHOP__/",
            horizon=9,
        ),
        attempt=3,
        policy=Policy(
            name="actor", checkpoint="runs/actor", fingerprint="f" * 8, temperature=0.7, top_p=0.9, top_k=40, prompt_version="webrl",
            prompt_max_tokens=512, tokenizer="t" * 64, seed=5, planner="model m 12345678",
        ),
        subgoals=(Subgoal(text="find", check="url"), Subgoal(text="buy", check="order")),
        steps=(first, second, third),
        status=Status.FINISHED,
        evidence=Evidence(answer="42", page=Page(url="__SHOP__/end", observation="thanks"), contents=("a", "")),
        outcome=Outcome(success=True, score=1.0, source="rule", detail="as expected"),
        error="none", created="2026-01-31T12:00:00+00:00",
    )  # fmt: skip


def again(folder) -> list[Trajectory]:
    made = []
    for path in atif_read.files(folder):
        for _, found in atif_read.episodes(path, sources.Foreign(), sources.Attempts()):
            if isinstance(found, UserError):
                raise found
            made.append(found)
    return made


def written(folder, *episodes, **options) -> dict:
    def refuse(error):
        raise error

    write_folder(folder, episodes, Settings(**options), refuse)
    return json.loads(next(folder.glob("*.json")).read_bytes())


def test_the_fields_of_a_file_are_those_of_the_format(tmp_path):
    tree = written(tmp_path, full(), prompt_price=2.0, response_price=10.0)
    assert (tree["schema_version"], tree["session_id"], tree["trajectory_id"]) == ("ATIF-v1.8", "a/b", "a/b")
    agent = tree["agent"]
    assert (agent["name"], agent["version"], agent["model_name"]) == ("actor", "f" * 8, "runs/actor")
    assert [tool["function"]["name"] for tool in agent["tool_definitions"]] == ["do", "exit", "go_backward", "go_forward"]
    task, start, first, second, third = tree["steps"]
    assert [step["step_id"] for step in tree["steps"]] == [1, 2, 3, 4, 5]
    assert task == {"step_id": 1, "source": "user", "message": "Buy it"}
    text, image = start["observation"]["results"][0]["content"]
    assert start["source"] == "system" and text == {"type": "text", "text": '<a id="1">'}
    assert (tmp_path / image["source"]["path"]).read_bytes() == JPEG and image["source"]["media_type"] == "image/jpeg"
    assert first["message"] == 'do(action="Click", element="1")' and first["reasoning_content"] == "the first link"
    assert first["tool_calls"] == [{"tool_call_id": "call-1", "function_name": "do", "arguments": {"action": "Click", "element": "1"}}]
    assert first["observation"]["results"] == [
        {"source_call_id": "call-1", "content": "the link is gone", "extra": {"error": True}},
        {"source_call_id": "call-1", "content": "lamp", "extra": {"url": "__SHOP__/1"}},
    ]
    # 100 prompt tokens at 2 USD and 2 response tokens at 10 USD per million.
    assert first["metrics"] == {
        "prompt_tokens": 100, "completion_tokens": 2, "cost_usd": pytest.approx(220e-6), "completion_token_ids": [5, 6],
        "logprobs": [-0.5, -0.25],
    }  # fmt: skip
    assert first["extra"]["mira_jax"]["sampling_log_probs"] == [-0.4, -0.2]
    assert first["extra"]["mira_jax"]["milestones"] == [True, False]
    assert "tool_calls" not in second and "metrics" not in second
    assert third["tool_calls"][0]["arguments"] == {"message": "42"}
    assert third["observation"]["results"][0]["content"] == "thanks"
    assert tree["final_metrics"] == {
        "total_prompt_tokens": 100, "total_completion_tokens": 2, "total_cost_usd": pytest.approx(220e-6), "total_steps": 5,
        "extra": {"reward": 1.0},
    }  # fmt: skip
    assert tree["extra"]["mira_jax"]["outcome"] == {"success": True, "score": 1.0, "source": "rule", "detail": "as expected"}
    assert again(tmp_path) == [full()]


def test_costs_are_absent_without_prices(tmp_path):
    tree = written(tmp_path, full())
    assert "cost_usd" not in tree["steps"][2]["metrics"] and "total_cost_usd" not in tree["final_metrics"]


def test_an_episode_without_steps_keeps_its_last_page(tmp_path):
    broken = msgspec.structs.replace(full(), steps=(), outcome=None, status=Status.INFRA_ERROR)
    tree = written(tmp_path, broken)
    assert [step["source"] for step in tree["steps"]] == ["user", "system"]
    assert again(tmp_path) == [broken]


TEXT = st.text(max_size=12)
WORDS = st.one_of(st.none(), TEXT)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
STATES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | FLOATS | TEXT,
    lambda part: st.lists(part, max_size=2) | st.dictionaries(TEXT, part, max_size=2),
    max_leaves=6,
)
NAMES = st.sampled_from(["Click", "exit", "Go Backward", "Go Forward", "do", "Type", ""]) | TEXT
ACTIONS = st.builds(Action, name=NAMES, argument=WORDS, element=WORDS)
PAGES = st.builds(Page, url=TEXT, observation=TEXT, screenshot=st.none() | st.binary(max_size=9))
IDS = st.none() | st.lists(st.integers(0, 2**31), max_size=3).map(tuple)
PROBS = st.none() | st.lists(FLOATS, max_size=3).map(tuple)
STEPS = st.builds(
    Step, index=st.integers(0, 99), page=PAGES, response=TEXT, reasoning=TEXT, cut=st.booleans(), action=st.none() | ACTIONS, error=WORDS,
    state=st.none() | st.dictionaries(TEXT, STATES, max_size=2), milestones=st.lists(st.booleans(), max_size=3).map(tuple),
    prompt_hash=TEXT,
    token_ids=IDS, log_probs=PROBS, sampling_log_probs=PROBS, log_prob=st.none() | FLOATS,
    tokens=st.builds(TokenCounts, prompt=st.integers(0, 9), response=st.integers(0, 9)), seconds=st.builds(Seconds, browser=FLOATS),
)  # fmt: skip
EPISODES = st.builds(
    Trajectory, id=TEXT, format=st.sampled_from([1, 2]),
    task=st.builds(
        Task, id=TEXT, suite=TEXT, sites=st.lists(TEXT, max_size=2).map(tuple), template=TEXT, split=TEXT, seed=st.integers(0, 2**60),
        intent=TEXT, start_url=TEXT, horizon=st.integers(0, 99),
    ),
    attempt=st.integers(0, 9), policy=st.builds(Policy, name=TEXT, checkpoint=TEXT, temperature=FLOATS, seed=st.integers(0, 9)),
    subgoals=st.lists(st.builds(Subgoal, text=TEXT, check=TEXT), max_size=2).map(tuple), steps=st.lists(STEPS, max_size=3).map(tuple),
    status=st.sampled_from(Status),
    evidence=st.builds(Evidence, answer=WORDS, page=st.none() | PAGES, contents=st.lists(TEXT, max_size=2).map(tuple)),
    outcome=st.none() | st.builds(Outcome, success=st.booleans(), score=FLOATS, source=TEXT, detail=TEXT), error=TEXT, created=TEXT,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(episode=EPISODES)
def test_any_record_is_equal_after_out_and_in(tmp_path, episode):
    made = write(episode, Settings(), "images")
    (tmp_path / "images").mkdir(exist_ok=True)
    for path, image in made.images.items():
        (tmp_path / path).write_bytes(image)
    document = sources.parse(msgspec.json.encode(made.document), atif_format.Document, "file")
    assert atif_read.read_own(document, tmp_path, "file") == episode


@pytest.mark.parametrize(
    ("state", "field"),
    [({"price": float("nan")}, "steps[0].state.price"), ({"a": [b"x"]}, "steps[0].state.a[0]"), ({"a": {1: 2}}, "steps[0].state.a")],
)
def test_a_value_that_json_cannot_hold_is_refused_by_name(tmp_path, state, field):
    step = msgspec.structs.replace(full().steps[0], state=state)
    with pytest.raises(UserError) as refused:
        written(tmp_path, msgspec.structs.replace(full(), steps=(step,)))
    assert str(refused.value).startswith(f"episode a/b: {field}: JSON cannot hold this value")
    assert not list(tmp_path.iterdir())


def test_prompts_are_written_only_where_they_are_those_that_the_policy_read(tmp_path):
    tokenizer = Tokenizer(write_tokenizer(tmp_path / "tokenizer.model"))
    episode = trajectories(1, most_steps=2, seed=3)[0]
    config = PromptConfig(version="webrl", max_tokens=300)
    ids = prompt_ids(episode.task.intent, rounds([]), episode.steps[0].page.observation, config, tokenizer)
    steps = (
        msgspec.structs.replace(episode.steps[0], prompt_hash=prompt_hash(ids)),
        msgspec.structs.replace(episode.steps[0], index=1, prompt_hash="another"),
    )
    policy = Policy(name="p", prompt_version="webrl", prompt_max_tokens=300)
    episode = msgspec.structs.replace(episode, steps=steps, policy=policy)
    folder = tmp_path / "atif"
    tree = written(folder, episode, tokenizer=tokenizer)
    assert tree["steps"][2]["metrics"]["prompt_token_ids"] == ids
    assert "metrics" not in tree["steps"][3]
    assert again(folder) == [episode]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("steps", 0, "source"), "system", "steps[0]: expected the task"),
        (("steps", 3, "source"), "user", "steps[3]: expected a response"),
        (("steps", 1, "observation", "results", 0, "extra"), {}, "steps[1].observation.results[0].extra: expected the url"),
        (("steps", 2, "tool_calls", 0, "function_name"), "bash", "steps[2].tool_calls: expected one call of do, exit"),
        (("steps", 2, "extra", "mira_jax", "cut"), "yes", "steps[2].extra.mira_jax.cut: Expected `bool`, got `str`"),
        (("steps", 2, "observation"), {"results": []}, "steps[3]: no page before this response"),
        (("extra", "mira_jax", "task"), None, "extra.mira_jax.task: Expected `object`, got `null`"),
        (("extra", "mira_jax", "format"), 99, "extra.mira_jax.format: 99 is none of 1 to 2"),
        (("steps", 4, "step_id"), "5", "steps[4].step_id: Expected `int`, got `str`"),
        (("surprise",), 1, "Object contains unknown field `surprise`"),
        (("steps", 1, "observation", "results", 0, "content", 1, "source", "path"), "/etc/hostname", "is not inside of the file's folder"),
        (("steps", 1, "observation", "results", 0, "content", 1, "source", "path"), "../x", "is not inside of the file's folder"),
    ],
)
def test_a_changed_file_is_refused_by_file_and_field(tmp_path, path, value, message):
    tree = written(tmp_path, full())
    place = tree
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    file = next(tmp_path.glob("*.json"))
    file.write_text(json.dumps(tree))
    with pytest.raises(UserError) as refused:
        again(tmp_path)
    assert str(refused.value).startswith(f"{file}: ") and message in str(refused.value)


def test_file_names_are_safe_and_differ():
    taken: set[str] = set()
    names = [file_name(text, taken) for text in ("abc", "ABC", "../x", "a/b", "a_b", "a b", "", ".", "x" * 300, "é")]
    assert names[0] == "abc" and len({name.lower() for name in names}) == len(names)
    assert all(name and not name.startswith(".") and "/" not in name and len(name) < 120 and name.isascii() for name in names)


def test_the_command_converts_out_and_in(tmp_path, capsys):
    shards, atif, back = write_shards(tmp_path / "shards", 12, infra_every=5), tmp_path / "atif", tmp_path / "again"
    assert COMMAND.run([str(shards), "--write", "atif", "--out", str(atif)]) == 0
    assert COMMAND.run([str(atif), "--read", "atif", "--out", str(back)]) == 0
    assert f"{back}: 12 episodes" in capsys.readouterr().out
    assert sorted(ShardReader(back), key=lambda one: one.id) == sorted(ShardReader(shards), key=lambda one: one.id)
