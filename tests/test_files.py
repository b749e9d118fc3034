"""Files written whole, strict JSON, and one writer in a folder."""

import json
import math
import subprocess
import sys

import pytest

from mira_jax.errors import UserError
from mira_jax.files import parse_json, partial_folder, publish, read_json, sole_writer, to_json, write_atomically


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [1.5, math.nan]}, (math.inf, "x")])
def test_json_that_is_written_is_strict(value):
    def refuse(name):
        raise AssertionError(name)

    json.loads(to_json({"value": value}), parse_constant=refuse)


@pytest.mark.parametrize("text", [b"", b'{"step": NaN}', b'{"step": -Infinity}', b'{"ste', b"\xff\xfe\x00", b"[]", b"null", b"[" * 100_000])
def test_odd_json_is_one_message_with_the_file_and_the_remedy(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(UserError, match=r"a\.json: damaged: .*; copy it again$"):
        read_json(tmp_path / "a.json", "copy it again")


def test_numbers_come_back_as_they_were():
    tree = {"a": [1, 2.5, None, True], "b": {"c": "é"}}
    assert parse_json(to_json(tree)) == tree


@pytest.mark.parametrize("path", ["gs://bucket/run", "s3://bucket/run", "file:///tmp/run", "hdfs://host/run", "http://host/run"])
def test_no_folder_is_made_of_an_address(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="an address, not a path"):
        write_atomically(path, b"")
    with pytest.raises(UserError, match="an address, not a path"), sole_writer(path, "runs"):
        pass
    assert not any(tmp_path.iterdir())


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path):
    hold = (
        "import sys, time\nfrom mira_jax.files import sole_writer\n"
        "with sole_writer(sys.argv[1], 'runs'):\n print(1, flush=True)\n time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(UserError, match="another process is writing runs here"), sole_writer(tmp_path, "runs"):
        pass
    process.kill()
    process.communicate()
    with sole_writer(tmp_path, "runs"):
        pass


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), partial_folder(out) as partial:
        (partial / "a").write_text("1")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    out.mkdir()
    with partial_folder(out) as partial:
        (partial / "a").write_text("1")
        publish(partial, out)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/a"]
    with pytest.raises(OSError, match="not empty"), partial_folder(out) as partial:
        publish(partial, out)
    assert (out / "a").read_text() == "1" and len(list(tmp_path.iterdir())) == 1
