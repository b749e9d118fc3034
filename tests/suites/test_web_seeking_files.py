"""Files of questions: each format as its authors publish it, with invented questions, and encrypted by an implementation of its own."""

import base64
import csv
import hashlib
import io
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.errors import UserError
from mira_jax.trajectories.tasks import split_by_hash
from rollouts.suites import make_suite
from rollouts.suites.web_seeking.published import TABLES, read_table
from rollouts.suites.web_seeking.questions import describe, read_questions

CANARY = "INVENTED TEST DATA. canary GUID mira-test:00000000-1111-2222-3333-444444444444"
SECRET = "the quiet lighthouse keeper of Vrångö"
PAIRS = [(f"Which lamp did {SECRET} light in 19{number}?", f"lamp {number}") for number in range(30, 34)]


def encrypt(text, key):
    """As a number: the text's bytes exclusive-or the key, repeated."""
    data = text.encode()
    repeated = (key * (len(data) // len(key) + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return base64.b64encode(number.to_bytes(len(data), "big")).decode()


def hashed(canary=CANARY):
    digest = hashlib.new("sha256")
    digest.update(canary.encode("utf-8"))
    return digest.digest()


def browsecomp(pairs=PAIRS, canary=CANARY, written=None):
    rows = [(encrypt(q, hashed(canary)), encrypt(a, hashed(canary)), "Art & lamps", written or canary) for q, a in pairs]
    return [("problem", "answer", "problem_topic", "canary"), *rows]


def browsecomp_zh(pairs=PAIRS):
    rows = [(encrypt("灯塔", hashed()), encrypt(q, hashed()), encrypt(a, hashed()), CANARY) for q, a in pairs]
    return [("Topic", "Question", "Answer", "canary"), *rows]


def xbench(pairs=PAIRS):
    key = CANARY.encode()
    rows = [(str(place), encrypt(q, key), encrypt(a, key), encrypt("steps", key), CANARY) for place, (q, a) in enumerate(pairs, 101)]
    return [("id", "prompt", "answer", "reference_steps", "canary"), *rows]


def gaia(pairs=PAIRS, **changes):
    fields = {"file_name": "", "Level": 2, "Annotator Metadata": {"Steps": "1. think"}}
    return [{"task_id": f"{i:08d}-aa", "Question": q, "Final answer": a, **fields, **changes} for i, (q, a) in enumerate(pairs)]


def table(path, rows, encoding="utf-8"):
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return str(path)


def lines(path, trees):
    path.write_text("".join(json.dumps(tree) + "\n" for tree in trees), encoding="utf-8")
    return str(path)


FORMATS = {
    "browsecomp": (browsecomp, "Art & lamps"), "browsecomp_zh": (browsecomp_zh, "灯塔"), "xbench": (xbench, "xbench")
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_an_encrypted_table_gives_its_questions(tmp_path, name, encoding):
    made, template = FORMATS[name]
    found = read_questions(name, table(tmp_path / "q.csv", made(), encoding), training=False)
    assert [(one.text, one.answers) for one in found.values()] == [(q, (a,)) for q, a in PAIRS]
    assert {(one.template, one.split, one.canary) for one in found.values()} == {(template, "test", CANARY)}
    assert list(found) == [one.id for one in found.values()] and all(one.startswith(f"{name}.") for one in found)
    assert describe(found) == "4 questions (0 train, 0 validation, 4 test)"


@given(
    text=st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(str.strip),
    canary=st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(lambda c: c == c.strip() and c),
)
@settings(max_examples=60, deadline=None)
def test_any_text_survives_any_canary(tmp_path_factory, text, canary):
    path = tmp_path_factory.mktemp("any") / "q.csv"
    rows = [browsecomp()[0], (encrypt(text, hashed(canary)), encrypt("a", hashed(canary)), "t", canary)]
    (one,) = read_table(table(path, rows), "file", TABLES["browsecomp"]).values()
    assert (one.text, one.answer, one.canary) == (text.strip(), "a", canary)


def test_gaia_gives_the_questions_without_files(tmp_path):
    trees = gaia()
    trees[1]["file_name"] = "picture.png"
    trees[2]["Level"] = "3"
    found = list(read_questions("gaia", lines(tmp_path / "metadata.jsonl", trees), training=False).values())
    assert [one.text for one in found] == [PAIRS[0][0], PAIRS[2][0], PAIRS[3][0]]
    assert [one.template for one in found] == ["level_2", "level_3", "level_2"]
    assert found[0].id == "gaia.00000000-aa" and found[0].answers == ("lamp 30",) and not found[0].canary


def test_own_questions(tmp_path):
    trees = [
        {"question": "who?", "answer": "she", "id": 7},
        {"question": "where?", "answers": ["here", "there"], "template": "places", "split": "validation"},
    ]
    first, second = read_questions("questions", lines(tmp_path / "own.jsonl", trees), training=False).values()
    assert (first.id, first.text, first.answers, first.template) == ("questions.7", "who?", ("she",), "questions")
    assert first.split == split_by_hash(b"7")
    assert (second.answers, second.template, second.split) == (("here", "there"), "places", "validation")


def test_own_questions_are_split_by_their_ids(tmp_path):
    trees = [{"question": f"question {n}", "answer": "a", "id": n} for n in range(1000)]
    found = read_questions("questions", lines(tmp_path / "own.jsonl", trees), training=False)
    reversed_file = read_questions("questions", lines(tmp_path / "other.jsonl", trees[::-1]), training=False)
    assert all(reversed_file[name] == one for name, one in found.items())
    counts = [sum(one.split == split for one in found.values()) for split in ("train", "validation", "test")]
    assert 650 < counts[0] < 750 and 70 < counts[1] < 130 and 160 < counts[2] < 240


def changed(rows, row, column, value):
    rows = [list(one) for one in rows]
    rows[row][rows[0].index(column)] = value
    return rows


WRONG = {
    "no column": (browsecomp(), lambda rows: [row[:3] for row in rows], "no column canary; a file of BrowseComp has problem, answer"),
    "wrong canary": (
        browsecomp(written="another canary"),
        None,
        "question 1: problem: does not decrypt to text with the canary of its row",
    ),
    "no canary": (changed(browsecomp(), 2, "canary", " "), None, "question 2: canary: empty"),
    "plain text": (changed(browsecomp(), 3, "problem", PAIRS[2][0]), None, "question 3: problem: not base64"),
    "no answer": (changed(browsecomp(), 1, "answer", ""), None, "question 1: answer: does not decrypt"),
    "twice": ([*browsecomp(), browsecomp()[2]], None, "question 5: the id [0-9a-f]{12} occurs twice"),
    "short row": (browsecomp(), lambda rows: [*rows, rows[1][:2]], "question 5: it has another number of columns"),
    "empty": (browsecomp(), lambda rows: rows[:1], "no questions in it"),
    "no rows": ([], None, "no column problem, answer, problem_topic, canary"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_of_another_version_is_refused_without_showing_it(tmp_path, name, caplog):
    rows, change, message = WRONG[name]
    path = table(tmp_path / "q.csv", change(rows) if change else rows)
    with caplog.at_level(logging.DEBUG), pytest.raises(UserError, match=message) as error:
        read_questions("browsecomp", path, training=False)
    assert path in str(error.value)
    assert not any(part in str(error.value) + caplog.text for part in ("lighthouse", "lamp 3", SECRET))


def test_every_wrong_question_is_named_up_to_a_number(tmp_path):
    pairs = [(f"question number {n}", "a") for n in range(30)]
    path = table(tmp_path / "q.csv", browsecomp(pairs, written="another"))
    with pytest.raises(UserError, match="10 more questions are wrong") as error:
        read_questions("browsecomp", path, training=False)
    assert len(str(error.value).splitlines()) == 21


def test_files_of_another_benchmark_are_refused(tmp_path):
    for name, (made, _) in FORMATS.items():
        path = table(tmp_path / f"{name}.csv", made())
        for other in FORMATS:
            if other != name:
                with pytest.raises(UserError, match="no column"):
                    read_questions(other, path, training=False)
    science = [[*row[:3], row[4]] for row in xbench()]
    with pytest.raises(UserError, match="no column reference_steps"):
        read_questions("xbench", table(tmp_path / "science.csv", science), training=False)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("q.xlsx", b"PK\x03\x04", "a spreadsheet; save it as CSV"),
        ("q.csv", b"problem,answer\n\xff\xfe", "not UTF-8, at byte 15"),
        ("q.csv", b'problem,answer,problem_topic,canary\n"open', "not CSV"),
        ("q.csv", b"problem,answer,problem_topic,canary\na,b\0,c,d\n", "not CSV|not base64"),
        ("gone.csv", None, "cannot be read: No such file"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_questions("browsecomp", str(tmp_path / name), training=False)


@pytest.mark.parametrize(
    ("trees", "message"),
    [
        (gaia(**{"Final answer": "?"}), "its answer is not published; use the file of GAIA's validation split"),
        (gaia(Level=5), "Level is none of 1, 2, 3"),
        (gaia(file_name=None), "file_name is missing or no text"),
        (gaia(file_name="all.pdf"), "no tasks in it"),
        ([*gaia(), gaia()[0]], r"line 5 \(id '00000000-aa'\): its id is also that of"),
        ([{"question": "q", "answer": "a"}], "task_id is missing"),
        ([["a"]], "not an object"),
        ([], "no tasks in it"),
    ],
)
def test_other_files_than_gaias_are_refused_without_showing_them(tmp_path, trees, message):
    with pytest.raises(UserError, match=message) as error:
        read_questions("gaia", lines(tmp_path / "metadata.jsonl", trees), training=False)
    assert "lighthouse" not in str(error.value) and "lamp 3" not in str(error.value)
    with pytest.raises(UserError, match=r"convert metadata\.parquet to JSON Lines"):
        read_questions("gaia", str(tmp_path / "metadata.parquet"), training=False)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"question": "q"}, "either answer, a text, or answers"),
        ({"question": "q", "answer": "a", "answers": ["b"]}, "either answer"),
        ({"question": " ", "answer": "a"}, "question: 0 characters"),
        ({"question": "q", "answers": ["a", " "]}, "an answer is empty"),
        ({"question": "q", "answer": "a", "anwser": "b"}, "unknown key anwser; did you mean answer"),
        ({"question": "q", "answer": "a", "split": "dev"}, "split"),
        ({"question": "q", "answer": "a", "template": ""}, "template: empty"),
        ({"question": "q", "answer": 3}, "answer"),
        ({"question": "q", "answer": "a", "id": " x"}, "the id"),
    ],
)
def test_own_questions_that_are_wrong_are_named(tmp_path, tree, message):
    with pytest.raises(UserError, match=rf"own\.jsonl, line 1.*{message}"):
        read_questions("questions", lines(tmp_path / "own.jsonl", [tree]), training=False)


def test_a_benchmark_is_not_trained_on_unless_told(tmp_path):
    path = table(tmp_path / "q.csv", browsecomp([(f"question number {n}", "a") for n in range(40)]))
    suite = make_suite("web_seeking", benchmark="browsecomp", file=path)
    assert len(suite.tasks("test", None, 40, 0)) == 40
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=r"suite\.options\.training: browsecomp is a benchmark"):
            suite.tasks(split, None, 1, 0)
    suite = make_suite("web_seeking", benchmark="browsecomp", file=path, training=True)
    train = suite.tasks("train", None, 20, 0)
    assert {task.split for task in train} == {"train"}
    assert not {task.id for task in train} & {task.id for task in suite.tasks("test", None, 2, 0)}
    with pytest.raises(UserError, match=r"suite\.options\.training"):
        make_suite("web_seeking", file=path, training=True)
    with pytest.raises(UserError, match=r"suite\.options\.file: not set"):
        make_suite("web_seeking").tasks("test", None, 1, 0)
