"""Files written whole, strict JSON, and one writer in a folder."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mira_jax import files
from mira_jax.errors import UserError
from mira_jax.files import lock, parse_json, partial_folder, publish, read_json, sha256, sole_writer, to_json, write_atomically


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


def test_a_file_is_hashed_once_unless_it_changes(tmp_path, monkeypatch):
    reads = []
    digest = hashlib.file_digest
    monkeypatch.setattr(files.hashlib, "file_digest", lambda file, name: reads.append(file.name) or digest(file, name))
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"one")
    link.symlink_to(path)
    assert sha256(path) == sha256(str(path)) == sha256(link) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 1
    times = path.stat()
    while path.stat().st_ctime_ns == times.st_ctime_ns:
        path.write_bytes(b"two")
    # The same size and the same modification time, as after `cp -p` of a damaged copy.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert sha256(path) == hashlib.sha256(b"two").hexdigest() and len(reads) == 2


HOLDER = """
import sys
from mira_jax.files import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_is_waited_for_and_ends_with_its_process(tmp_path):
    path = tmp_path / "folder" / "a.lock"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        waits = []

        def wait():
            waits.append(process.poll())
            process.kill()

        with lock(path, wait):
            assert waits == [None] and path.exists()
    with lock(path, lambda: waits.append("again")):
        assert path.exists()
    assert waits == [None] and not path.exists()


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_lock_is_taken_if_the_last_holder_removes_the_folder_while_it_is_made(tmp_path, monkeypatch, error):
    """`Path.mkdir(exist_ok=True)` fails if the folder existed and then does not."""
    failures = [error(), None]
    mkdir = Path.mkdir

    def removed(self, *args, **options):
        if failures and (failure := failures.pop(0)):
            raise failure
        mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", removed)
    with lock(tmp_path / "a" / "b.lock"):
        assert (tmp_path / "a" / "b.lock").exists()


def test_a_lock_below_a_file_is_an_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"), lock(tmp_path / "a" / "b" / "c.lock"):
        pass


def test_a_lock_leaves_no_empty_folders_of_its_own(tmp_path):
    with lock(tmp_path / "a" / "b" / "c.lock"):
        pass
    assert not list(tmp_path.iterdir())
    with lock(tmp_path / "a" / "b" / "c.lock"):
        (tmp_path / "a" / "kept").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


COUNTER = """
import sys
from pathlib import Path
from mira_jax.files import lock
number = Path(sys.argv[2])
for _ in range(200):
    with lock(sys.argv[1]):
        number.write_text(str(int(number.read_text()) + 1))
"""


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path):
    (tmp_path / "number").write_text("0")
    arguments = [sys.executable, "-c", COUNTER, tmp_path / "folder" / "a.lock", tmp_path / "number"]
    processes = [subprocess.Popen(arguments) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "600"
