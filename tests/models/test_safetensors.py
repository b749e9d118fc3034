"""Reads what the safetensors library reads, and refuses what it refuses."""

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mira_jax.errors import UserError
from mira_jax.models.huggingface.safetensors import MAX_HEADER_BYTES, open_folder, read_header

A = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
B = {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]}


def write(path, header, data=b"\0" * 24, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def library_reads(path) -> bool:
    try:
        with safe_open(path, framework="np") as file:
            file.keys()
        return True
    except (SafetensorError, OSError):
        return False


def we_read(path) -> bool:
    try:
        read_header(path)
        return True
    except UserError as error:
        assert str(path) in str(error)
        return False


HEADERS = {
    "good": {"a": A, "b": B},
    "no tensors": {},
    "only metadata": {"__metadata__": {"format": "pt"}},
    "metadata of numbers": {"__metadata__": {"format": 1}, "a": A, "b": B},
    "metadata a list": {"__metadata__": [], "a": A, "b": B},
    "metadata null": {"__metadata__": None, "a": A, "b": B},
    "order of the header is free": {"b": B, "a": A},
    "overlap": {"a": A, "b": {**B, "data_offsets": [8, 16]}},
    "the same place twice": {"a": A, "b": B, "c": A},
    "a gap": {"a": {**A, "shape": [1], "data_offsets": [0, 4]}, "b": B},
    "bytes unused at the end": {"a": A},
    "beyond the end": {"a": A, "b": {**B, "shape": [8], "data_offsets": [16, 32]}},
    "end before start": {"a": A, "b": {**B, "data_offsets": [24, 16]}},
    "too few bytes for the shape": {"a": A, "b": {**B, "shape": [5]}},
    "negative shape": {"a": {**A, "shape": [-2, -2]}, "b": B},
    "negative offsets": {"a": {**A, "data_offsets": [-16, 0]}, "b": B},
    "shape of floats": {"a": {**A, "shape": [2.0, 2.0]}, "b": B},
    "offsets of floats": {"a": {**A, "data_offsets": [0.0, 16.0]}, "b": B},
    "shape of strings": {"a": {**A, "shape": ["2", "2"]}, "b": B},
    "shape of booleans": {"a": {**A, "shape": [True]}, "b": B},
    "shape that overflows": {"a": {**A, "shape": [2**63, 2**63, 0]}, "b": B},
    "huge shape": {"a": {**A, "shape": [10**30]}, "b": B},
    "three offsets": {"a": {**A, "data_offsets": [0, 8, 16]}, "b": B},
    "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 16]}, "b": B},
    "unknown dtype": {"a": {**A, "dtype": "F33"}, "b": B},
    "dtype a list": {"a": {**A, "dtype": ["F32"]}, "b": B},
    "dtype in small letters": {"a": {**A, "dtype": "f32"}, "b": B},
    "a tensor is a number": {"a": 5, "b": B},
    "a tensor is null": {"a": None, "b": B},
    "unknown keys of a tensor": {"a": {**A, "strides": [2, 1]}, "b": B},
    "scalar": {"a": A, "b": B, "c": {"dtype": "F32", "shape": [], "data_offsets": [24, 28]}},
    "empty tensor": {"a": A, "b": B, "c": {"dtype": "F32", "shape": [0, 4], "data_offsets": [24, 24]}},
    "empty tensor in the middle": {"a": A, "b": B, "c": {"dtype": "F32", "shape": [0, 4], "data_offsets": [16, 16]}},
    "half a byte": {"a": A, "b": {"dtype": "F4", "shape": [1], "data_offsets": [16, 24]}},
    "four bits": {"a": A, "b": {"dtype": "F4", "shape": [16], "data_offsets": [16, 24]}},
    "six bits": {"a": A, "b": {"dtype": "F6_E2M3", "shape": [8], "data_offsets": [16, 22]}},
    **{
        f"dtype {name}": {"a": A, "b": {"dtype": name, "shape": [8 // size], "data_offsets": [16, 24]}}
        for name, size in {
            "F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
            "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
        }.items()
    },
    "a list": b"[]",
    "a string": b'"a"',
    "space before the brace": b" " + json.dumps({"a": A, "b": B}).encode(),
    "space after the brace": json.dumps({"a": A, "b": B}).encode() + b"   ",
    "byte order mark": b"\xef\xbb\xbf" + json.dumps({"a": A, "b": B}).encode(),
    "not UTF-8": json.dumps({"a": A, "b": B}).encode().replace(b'"a"', b'"\xff"'),
    "not JSON": b"{,}",
    "NaN": b'{"a":NaN}',
    "a name twice, the last whole": b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + json.dumps({"a": A, "b": B})[1:].encode(),
    "a name twice, both needed": json.dumps({"a": A, "b": B}).replace('"b"', '"a"').encode(),
    "empty": b"",
    "deep": b'{"a":' * 100_000,
    "deep and whole": b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "long integer": b'{"a":{"dtype":"F32","shape":[' + b"1" * 5000 + b'],"data_offsets":[0,24]}}',
}  # fmt: skip


def test_verdicts_on_headers_are_those_of_the_library(tmp_path):
    ours, theirs = {}, {}
    for name, header in HEADERS.items():
        write(tmp_path / "f.safetensors", header, b"\0" * (28 if name == "scalar" else 22 if name == "six bits" else 24))
        ours[name], theirs[name] = we_read(tmp_path / "f.safetensors"), library_reads(tmp_path / "f.safetensors")
    assert ours == theirs
    assert 20 < sum(theirs.values()) < len(HEADERS) - 20


@settings(max_examples=300, deadline=None)
@given(
    tensors=st.lists(st.tuples(st.sampled_from(["F32", "BF16", "U8", "F64"]), st.lists(st.integers(0, 3), max_size=2)), max_size=4),
    moved=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(-8, 8)), max_size=2),
    longer=st.sampled_from([0, 0, -1, 1, 8]),
)
def test_verdicts_on_moved_offsets_are_those_of_the_library(tmp_path_factory, tensors, moved, longer):
    header, at = {}, 0
    for number, (dtype, shape) in enumerate(tensors):
        nbytes = int(np.prod(shape)) * {"F32": 4, "BF16": 2, "U8": 1, "F64": 8}[dtype]
        header[str(number)] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    for number, which, by in moved:
        if str(number) in header:
            header[str(number)]["data_offsets"][which] += by
    path = tmp_path_factory.mktemp("moved") / "f.safetensors"
    write(path, header, b"\0" * max(0, at + longer))
    assert we_read(path) == library_reads(path)


@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1, MAX_HEADER_BYTES, MAX_HEADER_BYTES + 1, 500])
def test_verdicts_on_lengths_are_those_of_the_library(tmp_path, length):
    write(tmp_path / "f.safetensors", {"a": A, "b": B}, length=length)
    assert not library_reads(tmp_path / "f.safetensors")
    assert not we_read(tmp_path / "f.safetensors")


def test_a_large_header_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "f.safetensors"
    with open(path, "wb") as file:
        file.write((2_000_000_000).to_bytes(8, "little"))
        file.truncate(2_000_000_008)
    assert not library_reads(path)
    with pytest.raises(UserError, match="a header of 2,000,000,000 bytes; the maximum is 100,000,000"):
        read_header(path)


@pytest.mark.parametrize("size", [0, 3, 8, 9, 50])
def test_files_cut_short_are_refused_as_the_library_does(tmp_path, size):
    save_file({"a": np.ones(4, np.float32)}, tmp_path / "f.safetensors")
    (tmp_path / "f.safetensors").write_bytes((tmp_path / "f.safetensors").read_bytes()[:size])
    assert not library_reads(tmp_path / "f.safetensors")
    assert not we_read(tmp_path / "f.safetensors")


def test_a_web_page_in_place_of_the_file_is_named_by_its_beginning(tmp_path):
    (tmp_path / "f.safetensors").write_text("<!DOCTYPE html><html>Access denied</html>")
    with pytest.raises(UserError, match="begins with b'<!DOCTY"):
        read_header(tmp_path / "f.safetensors")


def folder_of(path, files, weight_map=None):
    path.mkdir()
    for name, tensors in files.items():
        save_file({key: np.full(3, value, np.float32) for key, value in tensors.items()}, path / name)
    if weight_map is not None:
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def test_each_tensor_is_in_the_file_that_the_index_names(tmp_path):
    folder = folder_of(tmp_path / "m", {"1.safetensors": {"a": 1}, "2.safetensors": {"b": 2}}, {"a": "1.safetensors", "b": "2.safetensors"})
    assert {name: tensor.read()[0] for name, tensor in open_folder(folder).items()} == {"a": 1, "b": 2}


def test_a_tensor_in_two_files_is_read_only_if_both_are_equal(tmp_path):
    """transformers reads the last file, the index may name the first."""
    weight_map = {"a": "1.safetensors", "b": "2.safetensors"}
    equal = folder_of(tmp_path / "equal", {"1.safetensors": {"a": 1}, "2.safetensors": {"b": 2, "a": 1}}, weight_map)
    assert open_folder(equal)["a"].read()[0] == 1
    other = folder_of(tmp_path / "other", {"1.safetensors": {"a": 1}, "2.safetensors": {"b": 2, "a": 0}}, weight_map)
    with pytest.raises(UserError, match=r"2\.safetensors: tensor a is also in 1\.safetensors, other there"):
        open_folder(other)


def test_a_single_file_beside_an_index_of_others_is_refused(tmp_path):
    folder = folder_of(tmp_path / "m", {"model.safetensors": {"a": 1}, "1.safetensors": {"a": 0}}, {"a": "1.safetensors"})
    with pytest.raises(UserError, match=r"holds both model\.safetensors and model\.safetensors\.index\.json, which names 1\.safetensors"):
        open_folder(folder)
    (folder / "1.safetensors").unlink()
    with pytest.raises(UserError, match="holds both"):
        open_folder(folder)


def test_an_index_of_the_single_file_is_read(tmp_path):
    folder = folder_of(tmp_path / "m", {"model.safetensors": {"a": 1}}, {"a": "model.safetensors"})
    assert open_folder(folder)["a"].read()[0] == 1


@pytest.mark.parametrize(
    "file",
    ["../outside/x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..\\x.safetensors", "\0.safetensors", "..", 5, ["x"], None],
)
def test_names_in_an_index_have_no_folders(tmp_path, file):
    folder_of(tmp_path / "outside", {"x.safetensors": {"a": 1}})
    folder = folder_of(tmp_path / "m", {}, {"a": file})
    with pytest.raises(UserError, match=r"index\.json: weight_map names .* expected a \.safetensors file of this folder"):
        open_folder(folder)


@pytest.mark.parametrize("weight_map", [[], {}, ["x"], "x", 5])
def test_an_index_without_a_map_is_refused(tmp_path, weight_map):
    folder = folder_of(tmp_path / "m", {"1.safetensors": {"a": 1}}, weight_map)
    with pytest.raises(UserError, match=r"index\.json: weight_map is missing or empty"):
        open_folder(folder)


def test_an_index_that_names_a_tensor_of_another_file_is_refused(tmp_path):
    folder = folder_of(tmp_path / "m", {"1.safetensors": {"a": 1}}, {"b": "1.safetensors"})
    with pytest.raises(UserError, match=r"1\.safetensors: has no tensor b; model\.safetensors\.index\.json says"):
        open_folder(folder)


def test_other_formats_are_named(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cposix\nsystem\nX")
    with pytest.raises(UserError, match=r"no weights; .* pytorch_model\.bin is of another format"):
        open_folder(tmp_path)


def test_pointers_of_git_lfs_are_named(tmp_path):
    (tmp_path / "model.safetensors").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1999811208\n")
    with pytest.raises(UserError, match=r"model\.safetensors: is a pointer of Git LFS.*git lfs pull"):
        open_folder(tmp_path)


def test_links_are_followed_inside_the_folder_and_the_cache_of_the_hub_alone(tmp_path):
    """The layout is that of huggingface_hub: snapshots/REVISION/FILE links to ../../blobs/HASH."""
    snapshot = tmp_path / "models--x--y" / "snapshots" / "0123abcd"
    (tmp_path / "models--x--y" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "models--x--y" / "blobs" / "f00d")
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00d")
    assert open_folder(snapshot)["a"].read()[0] == 1

    inside = folder_of(tmp_path / "inside", {"other.bin": {"a": 1}})
    (inside / "model.safetensors").symlink_to("other.bin")
    assert open_folder(inside)["a"].read()[0] == 1
    (tmp_path / "by-a-link").symlink_to(inside)
    assert open_folder(tmp_path / "by-a-link")["a"].read()[0] == 1

    outside = folder_of(tmp_path / "outside", {})
    for target in ("../inside/other.bin", str(inside / "other.bin"), "/dev/zero", "gone", "../outside"):
        (outside / "model.safetensors").unlink(missing_ok=True)
        (outside / "model.safetensors").symlink_to(target)
        with pytest.raises(UserError, match=r"model\.safetensors: (is a link to|cannot read it|is not a regular file)"):
            open_folder(outside)


def test_a_cache_whose_blobs_lead_elsewhere_is_refused(tmp_path):
    snapshot = tmp_path / "models--x--y" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    secret = folder_of(tmp_path / "secret", {"f00d": {"a": 1}})
    (tmp_path / "models--x--y" / "blobs").symlink_to(secret)
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00d")
    with pytest.raises(UserError, match="is a link to"):
        open_folder(snapshot)


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="is not a regular file"):
        open_folder(tmp_path)
