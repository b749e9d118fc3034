"""Options are chosen by what they are called, never by what they happen to contain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.web.options import Option, choose

COUNTRIES = ["Choose", "Australia", "Austria", "Cyprus", "United States", "United Kingdom", "Côte d'Ivoire"]


def options(*labels, disabled=()):
    return [Option(place, label, label, label in disabled) for place, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "text", "chosen"),
    [
        (COUNTRIES, "Austria", "Austria"),
        (COUNTRIES, "  united   STATES ", "United States"),
        (COUNTRIES, "united s", "United States"),
        (COUNTRIES, "kingdom", "United Kingdom"),
        (["10", "20", "100"], "10", "10"),
        (["Any", "Table\n   lamps"], "table", "Table\n   lamps"),
        (["Table", "Table lamps"], "table", "Table"),
        (["release-1000", "release-1750 (stable)"], "stable", "release-1750 (stable)"),
        (["a | b", "c"], "a / b", "a | b"),
        (['5" < 6"', "c"], "5' &lt; 6'", '5" < 6"'),
        (["name", "Name"], "Name", "Name"),
        (["", "one"], "", ""),
    ],
)
def test_an_option_is_found_by_its_label_or_the_beginning_of_a_word(labels, text, chosen):
    assert choose(options(*labels), text).label == chosen


@pytest.mark.parametrize(
    ("labels", "text", "refusal"),
    [
        (COUNTRIES, "US", 'has no option "US"; it has "Choose", "Australia"'),
        (COUNTRIES, "united", 'has several options for "united": "United States", "United Kingdom"'),
        (COUNTRIES, "ustria", 'has no option "ustria"'),
        (COUNTRIES, "", 'has no option ""'),
        (["10", "20"], "1", 'has no option "1"; it has "10", "20"'),
        (["1.5 kg", "2 kg"], "5", 'has no option "5"'),
        (["1.5 kg", "2 kg"], "1", 'has no option "1"'),
        (["-5", "7"], "5", 'has no option "5"'),
        ([], "x", 'has no option "x"; it has none'),
        ([f"release-{n}" for n in range(300)], "release-29x", 'the nearest of its 300 are "release-29'),
    ],
)
def test_what_is_no_option_is_refused_with_the_options(labels, text, refusal):
    with pytest.raises(ValueError) as error:
        choose(options(*labels), text)
    assert refusal in str(error.value)
    assert len(str(error.value)) < 2000


def test_values_name_options_and_tell_equal_labels_apart():
    cities = [Option(0, "Paris", "fr"), Option(1, "Paris", "tx"), Option(2, "Lyon", "ly"), Option(3, "tx", "other")]
    assert choose(cities, "ly").place == choose(cities, "LY").place == 2
    assert choose(cities, "tx").place == 3, "a label comes before a value"
    assert choose(cities[:3], "tx").place == 1
    with pytest.raises(ValueError, match='"Paris" \\(value "fr"\\), "Paris" \\(value "tx"\\)'):
        choose(cities, "Paris")
    assert choose([Option(0, "x", "1"), Option(1, "x", "1")], "x").place == 0


def test_disabled_options_are_refused():
    with pytest.raises(ValueError, match='has the option "Sold out", but it is disabled'):
        choose(options("One", "Sold out", disabled=["Sold out"]), "sold out")
    assert choose([Option(0, "One", "a", True), Option(1, "One", "b")], "One").place == 1


WORDS = st.text("abct", min_size=1, max_size=4)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=6), st.data())
def test_no_option_is_chosen_for_a_part_of_a_word_that_is_not_its_beginning(labels, data):
    word = data.draw(st.sampled_from(labels))
    text = word[data.draw(st.integers(0, len(word) - 1)) :].strip()
    try:
        label = choose(options(*labels), text).label
    except ValueError:
        return
    assert f" {label}".find(f" {text}") >= 0
    assert label == text or text not in labels
