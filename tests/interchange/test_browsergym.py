"""Actions and episodes of BrowserGym. The mapping is checked against its documentation's own examples of each function."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_jax.errors import UserError
from mira_jax.interchange import browsergym, sources
from mira_jax.interchange.browsergym_actions import PARAMETERS, WITHOUT, MalformedError, NoCounterpartError, parse
from mira_jax.trajectories import actions
from mira_jax.trajectories.records import Action, Status


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("click('a51')", Action(name="Click", element="a51")),
        ("click(12)", Action(name="Click", element="12")),
        ("click('b22', button=\"right\")", Action(name="Right Click", element="b22")),
        ("click(bid='1', button='left', modifiers=[])", Action(name="Click", element="1")),
        ("hover('b8')", Action(name="Hover", element="b8")),
        ("fill('237', 'example value')", Action(name="Type", argument="example value", element="237")),
        ("fill('45', \"multi-line\\nexample\")", Action(name="Type", argument="multi-line\nexample", element="45")),
        ("fill('a12', \"example with \\\"quotes\\\"\")", Action(name="Type", argument='example with "quotes"', element="a12")),
        ("fill('b534', 'Montre', True)", Action(name="Type", argument="Montre", element="b534")),
        ("clear('996')", Action(name="Type", argument="", element="996")),
        ("select_option('a48', \"blue\")", Action(name="Select Dropdown Option", argument="blue", element="a48")),
        ("select_option('a48', ['blue'])", Action(name="Select Dropdown Option", argument="blue", element="a48")),
        ("press('88', 'Enter')", Action(name="Press Enter", element="88")),
        ("keyboard_press('Enter')", Action(name="Press Enter")),
        ("scroll(0, 200)", Action(name="Scroll Down")),
        ("scroll(0, -100.5)", Action(name="Scroll Up")),
        ("tab_focus(2)", Action(name="Switch Tab", argument="2")),
        ("go_back()", Action(name="Go Backward")),
        ("go_forward()", Action(name="Go Forward")),
        ("noop(500)", Action(name="Wait")),
        ("# why\nnoop()", Action(name="Wait")),
        ("send_msg_to_user(\"the city was built in 1751.\")", Action(name="exit", argument="the city was built in 1751.")),
        ("report_infeasible('no email field')", Action(name="exit", argument="N/A")),
    ],
)  # fmt: skip
def test_an_action_has_its_counterpart(text, action):
    assert parse(text) == action == actions.parse(actions.format_action(action))


@pytest.mark.parametrize(
    "text",
    [
        "click('48', button=\"middle\", modifiers=[\"Shift\"])", "click('48', 'left', ['Control'])",
        "select_option('c48', ['red', 'green'])",
        "press('88', 'Backspace')", "keyboard_press('Control+a')", "scroll(-50.2, -100.5)", "scroll(0, 0)", "tab_focus(-1)",
        "check('55')",
        "dblclick('12')", "goto('http://www.example.com')", "drag_and_drop('56', '498')", "mouse_click(887.2, 68)",
        "keyboard_type('Hello')",
        "new_tab()", "upload_file('5', 'x')", "click('1')\nclick('2')", "click('1'); noop()",
    ],
)  # fmt: skip
def test_an_action_without_a_counterpart_is_told_apart(text):
    with pytest.raises(NoCounterpartError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "click", "click(", "1 + 1", "fly('1')", "click()", "click('1', bid='1')", "click('1', speed=2)",
        "click('1', **{'button': 'left'})",
        "click(*['1'])", "click(True)", "click(None)", "click(__import__('os').system('true'))", "click('a' + 'b')", "click(f'{1}')",
        "os.remove('x')", "__import__('os')", "scroll(0, 1e999)", "scroll(0, True)", "scroll('0', 1)", "tab_focus(1.5)", "tab_focus('1')",
        "import os", "x = click('1')", "send_msg_to_user(1)", "send_msg_to_user('a' * 9)", "click('1', 'left', [], 1)", "\0", "(" * 5000,
        "fill('1', " + "[" * 500 + "]" * 500 + ")", "-" * 19_000 + "1", "noop(" + "9" * 30_000 + ")", "select_option('1', ('a',))",
        "fill('1', 'x', 1)",
    ],
)  # fmt: skip
def test_text_that_is_no_call_with_literals_is_malformed(text):
    with pytest.raises(MalformedError) as refused:
        parse(text)
    assert len(str(refused.value)) < 200


@given(
    st.text(max_size=60) | st.sampled_from(list(PARAMETERS)).flatmap(lambda name: st.text(max_size=20).map(lambda rest: f"{name}({rest})"))
)
def test_any_text_is_an_action_or_one_of_two_errors(text):
    with contextlib.suppress(MalformedError, NoCounterpartError):
        assert isinstance(parse(text), Action)


def test_no_function_is_in_both_tables():
    assert not set(PARAMETERS) & set(WITHOUT)


def line(**changes) -> dict:
    return {
        "task": "webarena.310", "seed": 7, "agent": "GenericAgent-gpt", "goal": "Buy the lamp", "max_steps": 30,
        "steps": [
            {"url": "http://shop/", "page": "<a bid='a12'>lamp</a>", "action": "click('a12')", "think": "the lamp", "error": ""},
            {"url": "http://shop/lamp", "page": "lamp", "action": "send_msg_to_user('done')"},
        ],
        "end": {"url": "http://shop/end", "page": "thanks"}, "reward": 1.0, "truncated": False, "error": "", **changes,
    }  # fmt: skip


def found(tmp_path, *episodes) -> list:
    path = tmp_path / "episodes.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in episodes))
    return [one for file in browsergym.files(path) for _, one in browsergym.episodes(file, sources.Foreign(), sources.Attempts())]


def step(action: str, error: str = "") -> dict:
    return {"url": "u", "page": "p", "action": action, "error": error}


def test_an_episode_is_read(tmp_path):
    (episode,) = found(tmp_path, line())
    assert (episode.task.id, episode.task.template, episode.task.seed, episode.task.horizon) == (
        "browsergym.webarena.310",
        "webarena.310",
        7,
        30,
    )
    assert (episode.policy.name, episode.task.intent, episode.status) == ("GenericAgent-gpt", "Buy the lamp", Status.FINISHED)
    assert (episode.outcome.success, episode.evidence.answer, episode.evidence.page.observation) == (True, "done", "thanks")
    first = episode.steps[0]
    assert (first.page.url, first.page.observation) == ("http://shop/", "<a bid='a12'>lamp</a>")
    assert (first.response, first.reasoning, first.error) == ('do(action="Click", element="a12")', "the lamp", None)


def test_how_an_episode_ended(tmp_path):
    partly, truncated, broken, unknown = found(
        tmp_path, line(reward=0.5), line(seed=8, steps=[step("noop()")], truncated=True, reward=0),
        line(seed=9, error="the browser died", reward=0), line(seed=10, reward=None),
    )  # fmt: skip
    assert (partly.outcome.success, partly.outcome.score) == (False, 0.5)
    assert truncated.status is Status.HORIZON and not truncated.outcome.success
    assert broken.status is Status.INFRA_ERROR and broken.outcome is None and broken.error == "the browser died"
    assert unknown.outcome is None


def test_a_malformed_action_is_a_step_only_if_browsergym_refused_it(tmp_path):
    kept, refused = found(tmp_path, line(steps=[step("hm", "no action found"), step("noop()")]), line(steps=[step("I do click('1')")]))
    assert (kept.steps[0].action, kept.steps[0].error, kept.steps[0].response) == (None, "no action found", "hm")
    assert str(refused).startswith(f"{tmp_path / 'episodes.jsonl'}, line 2: steps[0].action: ")


def test_attempts_at_a_task_are_numbered(tmp_path):
    first, second = found(tmp_path, line(), line(reward=0))
    assert (first.attempt, second.attempt) == (0, 1) and first.id != second.id


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (line(steps=[step("goto('http://x')")]), "steps[0].action: goto has no counterpart"),
        (line(steps=[step("send_msg_to_user('a')"), step("noop()")]), "steps[0].action: ends the episode, but 1 steps follow"),
        (line(steps=[]), "steps: the episode has none"),
        (line(reward=2), "reward: 2.0 is not in [0, 1]"),
        (line(reward=-1), "reward: -1.0 is not in [0, 1]"),
        (line(goal=5), "goal: Expected `str`, got `int`"),
        (line(surprise=5), "not valid: Object contains unknown field `surprise`"),
        (line(steps=[step("send_msg_to_user('\\ud800')")]), "holds half of a surrogate pair"),
        ("{", "not valid"),
        ("[]", "not valid: Expected `object`, got `array`"),
        ('{"reward": NaN}', "not valid"),
        (line(seed=2**70), ""),
    ],
)
def test_an_odd_line_is_refused_and_the_next_one_is_read(tmp_path, odd, message):
    refused, sound = found(tmp_path, odd, line())
    assert isinstance(refused, UserError) and str(refused).startswith(f"{tmp_path / 'episodes.jsonl'}, line 1: {message}")
    assert sound.success


def test_pickles_are_refused(tmp_path):
    (tmp_path / "step_0.pkl.gz").write_bytes(b"")
    with pytest.raises(UserError, match="a pickle can run any code"):
        browsergym.files(tmp_path / "step_0.pkl.gz")
    with pytest.raises(UserError, match="examples/agentlab_to_jsonl"):
        browsergym.files(tmp_path)
