"""When an answer of seeking is right."""

import pytest

from mira_arena.seeking.answers import is_right


@pytest.mark.parametrize(
    "answer",
    [
        "anna holt",
        "  Anna  HOLT. ",
        '"anna holt"',
        "the anna holt",
        "\uff21nna holt",
        "anna\nholt",
        "The grey heron",
        "grey heron",
        "(anna holt)",
    ],
)
def test_case_space_punctuation_at_the_ends_and_a_leading_article_do_not_matter(answer):
    assert is_right(answer, ("anna holt", "the grey heron"))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "the",
        "anna",
        "holt",
        "anna holt or emil holt",
        "anna holt, the grey heron",
        "anna holt is the author",
        "I think anna holt",
        "annaholt",
        "anna-holt",
        "Anna Hölt",
        "\u0430nna holt",
        "anna holt\u200b",
        "anna holt" * 10_000,
        "N/A",
        ".*",
    ],
)
def test_everything_else_does(answer):
    assert not is_right(answer, ("anna holt", "the grey heron"))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("1234", True),
        ("1,234", True),
        (" 1234. ", True),
        ("12,34", False),
        ("1.234", False),
        ("1234.0", False),
        ("01234", False),
        ("one thousand two hundred thirty-four", False),
        ("1234 people", False),
        ("about 1234", False),
        ("-1234", False),
        ("1234 1235", False),
        ("1234,1235", False),
    ],
)
def test_numbers_are_digits(answer, right):
    assert is_right(answer, ("1234",)) == right


@pytest.mark.parametrize(
    ("answer", "right"), [("N/A", True), ("n/a.", True), ("NA", False), ("unknown", False), ("", False), ("N/A or 5", False)]
)
def test_a_question_without_an_answer(answer, right):
    assert is_right(answer, ("N/A",)) == right
