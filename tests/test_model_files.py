"""The digests of a run's small files, in folders that a stranger may have made."""

import os

import pytest

from mira_jax.errors import UserError
from mira_jax.model_files import DIGESTS, digests_of, locate


def write(folder, name, content="{}"):
    (folder / name).write_text(content)
    return folder / name


def test_a_file_is_compared_with_its_digest(tmp_path):
    path = write(tmp_path, "model.json")
    with digests_of(tmp_path, ["model.json"]):
        assert not (tmp_path / DIGESTS).exists()
    assert locate(path) == path and locate(write(tmp_path, "other.json")).name == "other.json"
    path.write_text("{ }")
    with pytest.raises(UserError, match=rf"model.json: was damaged or changed .* remove {DIGESTS}"):
        locate(path)


@pytest.mark.parametrize("content", ["[]", "", "{", "null"])
def test_a_file_of_digests_that_holds_something_else_is_named(tmp_path, content):
    write(tmp_path, DIGESTS, content)
    with pytest.raises(UserError, match=f"{DIGESTS}: not valid JSON"):
        locate(write(tmp_path, "model.json"))


def test_digests_are_neither_a_pipe_nor_outside_of_the_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    path = write(folder, "model.json")
    os.mkfifo(folder / DIGESTS)
    with pytest.raises(UserError, match=f"{DIGESTS}: is not a regular file"):
        locate(path)
    (folder / DIGESTS).unlink()
    (folder / DIGESTS).symlink_to(write(tmp_path, "elsewhere"))
    with pytest.raises(UserError, match=f"{DIGESTS}: is a link to .*elsewhere, outside"):
        locate(path)
