"""The action grammar: what is read, what is refused, and what the policy is told."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mira_jax.trajectories.actions import ABSENT, EXIT, FORMS, OPTIONAL, REQUIRED, ActionForm, ParseError, format_action, parse
from mira_jax.trajectories.records import Action


@pytest.mark.parametrize(
    ("response", "action"),
    [
        ('do(action="Click", element="12")', Action(name="Click", element="12")),
        ("do(action='Click', element='blue lamp 2')", Action(name="Click", element="blue lamp 2")),
        ("do(action='Click', element=7)", Action(name="Click", element="7")),
        ('do(action="Type", argument="say \\"hi\\"\\n\\u00e9", element="3")', Action(name="Type", argument='say "hi"\né', element="3")),
        ('do(action="click",\n   element = "1",)\n', Action(name="Click", element="1")),
        ('# Element: the search box\n\n# Note: "quoted" ) (\ndo(action="Search", argument="it\'s", element="q")',
         Action(name="Search", argument="it's", element="q")),
        ('exit(message="")', Action(name="exit", argument="")),
        ("go_backward()", Action(name="Go Backward")),
        (' do(action="Go Forward") ', Action(name="Go Forward")),
        ('do(action="Press Enter")', Action(name="Press Enter")),
        ('do(action="Scroll Down")', Action(name="Scroll Down")),
    ],
)  # fmt: skip
def test_reads_the_grammar(response, action):
    assert parse(response) == action


@pytest.mark.parametrize(
    ("response", "told"),
    [
        ("", "no action"),
        ("# only a comment", "no action"),
        ("I think I should click", "not \"I think"),
        ('do(action="Click", element="1") now', 'nothing may follow the call, but "now"'),
        ('do(action="Click", element="1")\ndo(action="Click", element="2")', "nothing may follow"),
        ('do(action="Clik", element="1")', 'did you mean "Click"'),
        ('do(action="Click")', 'Click needs element="..."'),
        ('do(action="Type", element="1")', 'Type needs argument="..."'),
        ('do(action="Scroll Down", element="1")', "Scroll Down takes no element"),
        ('do(action="Click", element="1", element="2")', "element is given twice"),
        ('do(action="Click", target="1")', 'no parameter "target"; it takes action, argument, element'),
        ('do(action="Click", element="1', "no closing \""),
        ('do(action="Click", element="1\n")', "no closing \""),
        ('do(action="Click", element=one)', "must be in quotes"),
        ('do(action="Click" element="1")', "expected )"),
        ('do(action="Click", element="\\q")', "unknown escape \\q"),
        ('do(action="Click", element="\\ud800")', "surrogate"),
        ('do("Click", "1")', "expected name=\"value\""),
        ("do", "expected ( after do, not the end"),
        ("exit()", 'exit needs its message'),
        ('go_backward(element="1")', "go_backward has no parameter"),
        ('__import__("os").system("id")', "expected do(...)"),
        ("do(action=" + '"x' * 20_000, "characters"),
    ],
)  # fmt: skip
def test_refuses_all_else_and_says_why(response, told):
    with pytest.raises(ParseError) as refusal:
        parse(response)
    assert told in str(refusal.value)


PIECES = [
    "do", "exit", "go_backward", "go_forward", "(", ")", "=", ",", " ", "\t", "\r", "\n", "# ", '"', "'", "\\",
    "\\u", "\\ud800", "\\u00e9", "\\n", "action", "element", "argument", "message", *FORMS, "7", "00", "\u0661", "\u00b2", "-1", "1.5",
    "None", "__class__", "eval", "{0}", "%s", "\x00", "\x1b[2J", "\u2028", "\u202e", "\ud800", "\ufeff", "\u00a0", "\u017f", "\u212a",
    "\u201c", "<end_of_turn>", 'do(action="Click", element="1")',
]  # fmt: skip
"""What the grammar is made of, and what is like it."""
CUT = st.tuples(st.integers(0, 60), st.integers(0, 4), st.sampled_from(["", *PIECES]))


@st.composite
def nearly(draw):
    """A call of the grammar in which up to three places are replaced."""
    name, inner, mark = (
        draw(st.sampled_from([*FORMS, EXIT])),
        draw(st.text(max_size=8) | st.sampled_from(PIECES)),
        draw(st.sampled_from("\"'")),
    )
    text = (
        f"exit(message={mark}{inner}{mark})" if name == EXIT else f"do(action={mark}{name}{mark}, element={mark}{inner}{mark}, argument=12)"
    )
    for at, length, new in draw(st.lists(CUT, max_size=3)):
        text = text[:at] + new + text[at + length :]
    return text


HOSTILE = (
    nearly()
    | st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
)


def is_read_or_refused(text):
    try:
        action = parse(text)
    except ParseError as refusal:
        assert 0 < len(str(refusal)) < 400
    else:
        assert action.name == EXIT or action.name in FORMS
        form = ActionForm("", argument=REQUIRED) if action.name == EXIT else FORMS[action.name]
        for value, rule in ((action.element, form.element), (action.argument, form.argument)):
            assert rule == OPTIONAL or (value is None) == (rule == ABSENT)
        assert parse(format_action(action)) == action


@given(HOSTILE)
@example('do(action="Click", element="\\')
@example('do(action="Click", element=")')
@settings(max_examples=300, deadline=None)
def test_no_text_can_do_more_than_be_refused(text):
    is_read_or_refused(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(HOSTILE)
@settings(max_examples=100_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_no_text_of_a_hundred_thousand_can(text):
    is_read_or_refused(text)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@st.composite
def an_action(draw):
    name = draw(st.sampled_from([*FORMS, EXIT]))
    if name == EXIT:
        return Action(name=EXIT, argument=draw(TEXT))
    parts = {}
    for part in ("element", "argument"):
        rule = getattr(FORMS[name], part)
        if rule == REQUIRED or (rule != ABSENT and draw(st.booleans())):
            parts[part] = draw(TEXT)
    return Action(name=name, **parts)


@given(an_action())
def test_an_action_is_read_back_as_it_was_written(action):
    assert parse(format_action(action)) == action
    assert parse("# Note: because\n" + format_action(action) + "\n") == action
