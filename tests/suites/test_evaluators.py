"""WebArena's evaluators, on cases worked out by hand from WebArena-Lite's rules."""

import pytest

from mira_jax.errors import UserError
from mira_jax.trajectories.records import Evidence, Page
from mira_jax.trajectories.tasks import clean
from rollouts.suites.evaluators import evaluate, program_html, select_text, string_match, url_match

HTML = """<html><head><title>orders</title><style>.x {}</style></head><body>
<h1>order <b id="number">12</b></h1>
<ul class="lines big"><li class="line">2 <a href="/">blue
 lamp</a><br>red</li><li class="line">1 mug<img src="x"></li></ul>
<select><option>unseen</option></select><script>unseen()</script></body></html>"""


@pytest.mark.parametrize(
    ("locator", "text"),
    [
        ("#number", "12"),
        (".line", "2 blue lamp red | 1 mug"),
        ("h1", "order 12"),
        ("document.querySelector('.line').outerText", "2 blue lamp red"),
        ('document.querySelector("#number").innerText', "12"),
        ("", "order 12 2 blue lamp red1 mug"),
        ("#missing", ""),
    ],
)
def test_locators_select_visible_text(locator, text):
    assert select_text(HTML, locator) == text


@pytest.mark.parametrize("locator", ["func:shopping_get_order()", "lambda: 1", "document.body.remove()", "a > b", "__import__('os')"])
def test_other_locators_are_refused_not_run(locator):
    with pytest.raises(UserError, match="locator"):
        select_text(HTML, locator)


def test_clean_drops_case_white_space_around_and_one_pair_of_quotes():
    assert clean(' "Blue  Lamp" ') == "blue  lamp"
    assert clean('"') == ""
    assert clean("''x''") == "'x'"


@pytest.mark.parametrize(
    ("references", "answer", "right"),
    [
        ({"exact_match": "ada"}, " Ada ", True),
        ({"exact_match": "ada"}, "ada stone", False),
        ({"must_include": ["1", "2"]}, "12", True),
        ({"must_include": ["1"]}, "12", False),
        ({"must_include": ["1"]}, "it is 1.", True),
        ({"must_include": ["blue |OR| red", "lamp"]}, "a red lamp", True),
        ({"must_include": ["blue |OR| red", "lamp"]}, "a green lamp", False),
        ({"fuzzy_match": "N/A"}, "n/a", True),
        ({"fuzzy_match": ["N/A"]}, "not possible", False),
        ({"exact_match": "ada"}, None, False),
    ],
)
def test_string_match(references, answer, right):
    assert (string_match(references, answer) == []) is right


def test_a_fuzzy_match_needs_a_judge_model():
    with pytest.raises(UserError, match="judge model"):
        string_match({"fuzzy_match": "about an hour"}, "60 minutes")


class Holds:
    """Takes an answer that holds the reference."""

    def __init__(self):
        self.asked = []

    def same(self, question, reference, answer):
        self.asked.append((question, reference, answer))
        return reference in answer

    same_reason = same


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("2", True), ("it is 2.", True), ("2%", True), ("$2", True), ("2, or so", True), ("(2)", True), ("2's", True), ("2–9", True),
        ("12", False), ("2.5", False), ("0.2", False), ("x-2", False), ("2/9", False), ("2:30", False), ("2-star", False),
    ],
)  # fmt: skip
def test_a_lone_character_must_be_a_token(answer, right):
    assert (string_match({"must_include": ["2"]}, answer) == []) is right
    assert (string_match({"must_include": ["7 |OR| 2"]}, answer) == []) is right
    assert string_match({"must_include": ["2", "2"]}, answer) == []


def test_a_reader_decides_what_no_rule_can():
    reader = Holds()
    assert string_match({"fuzzy_match": ["hour", "sixty"]}, "One hour", "how long?", judge=reader) == [
        "answer does not mean 'sixty': 'one hour'"
    ]
    assert reader.asked == [("how long?", "hour", "one hour"), ("how long?", "sixty", "one hour")]
    assert string_match({"fuzzy_match": "N/A"}, "n/a", "email?", "no email", reader) == []
    assert string_match({"fuzzy_match": "N/A"}, "there is no email", "email?", "no email", reader) == []
    assert string_match({"fuzzy_match": "N/A"}, "a@b.c", "email?", "no email", reader)
    target = {"url": "last", "locator": "", "required_contents": {"fuzzy_match": ["a", "b"]}}
    assert program_html([target], ["it holds a, b alone"], "write", reader) == []
    assert reader.asked[-1] == ("write", "a, b", "it holds a, b alone")


def test_the_outcome_says_whether_a_model_may_have_judged():
    fuzzy = {"eval_types": ["string_match"], "reference_answers": {"fuzzy_match": ["4"]}}
    assert evaluate(fuzzy, Evidence(answer="4"), judge=Holds()).source == "judge"
    plain = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "4"}}
    assert evaluate(plain, Evidence(answer="4"), judge=Holds()).source == "rule"


@pytest.mark.parametrize(
    ("references", "url", "note", "right"),
    [
        ("__SHOP__/search?q=blue+lamp", "__SHOP__/search?q=blue+lamp&page=2", "GOLD in PRED", True),
        ("__SHOP__/search?q=blue+lamp", "__SHOP__/search?q=lamp", "GOLD in PRED", False),
        ("__SHOP__/a |OR| __SHOP__/b", "__SHOP__/b/c", "GOLD in PRED", True),
        ("__SHOP__/a", "__SHOP__/ab", "EXACT", False),
        ("__SHOP__/a/", "__SHOP__/a", "EXACT", True),
        ("__SHOP__/a?x=1 |OR| __SHOP__/a?x=2", "__SHOP__/a?x=2", "EXACT", True),
    ],
)
def test_url_match(references, url, note, right):
    assert (url_match(references, url, note) == []) is right


def test_program_html_compares_each_target():
    targets = [
        {"url": "__SHOP__/x", "locator": ".line", "required_contents": {"exact_match": "2 blue lamp"}},
        {"url": "__SHOP__/x", "locator": "", "required_contents": {"must_include": ["mug", "red |OR| green"]}},
    ]
    assert program_html(targets, ["2 blue LAMP", "green mug"]) == []
    assert program_html(targets, ["3 blue lamp", "mug"]) == [
        "__SHOP__/x .line is '3 blue lamp', not '2 blue lamp'",
        "__SHOP__/x lacks 'red |OR| green': 'mug'",
    ]
    assert program_html(targets, ["2 blue lamp"]) == ["1 of 2 targets were read"]


def test_every_eval_type_must_hold():
    evaluation = {
        "eval_types": ["string_match", "url_match"],
        "reference_answers": {"exact_match": "4"},
        "reference_url": "__SHOP__/a",
        "url_note": "",
    }
    here, there = Page(url="__SHOP__/a", observation=""), Page(url="__SHOP__/b", observation="")
    assert evaluate(evaluation, Evidence(answer="4", page=here)).success
    assert (
        evaluate(evaluation, Evidence(answer="5", page=there)).detail
        == "answer is '5', not '4'; the last page is __SHOP__/b, not __SHOP__/a"
    )
    assert not evaluate(evaluation, Evidence(answer="4")).success
    with pytest.raises(UserError, match="eval_types"):
        evaluate({"eval_types": ["python"]}, Evidence())
