"""One flipped bit anywhere in a checkpoint: other numbers are never read."""

import json
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from mira_jax.data.pipeline import Batches
from mira_jax.errors import UserError
from mira_jax.models.config import Gemma3Config
from mira_jax.models.weights import shapes
from mira_jax.training import load, run_weights
from mira_jax.training.checkpoint import Checkpoints, latest_checkpoint
from mira_jax.training.state import TrainState, params_of

CONFIG = Gemma3Config(40, 16, 2, 2, 1, 8, 24)
ABSTRACT = TrainState(*jax.eval_shape(lambda: ({}, {}, jnp.int32(0))))


def params(seed: int) -> dict:
    draw = np.random.default_rng(seed)
    return unflatten_dict({name: jnp.asarray(draw.normal(size=shape), jnp.float32) for name, shape in shapes(CONFIG).items()})


def state(step: int) -> TrainState:
    return TrainState(params(step), {"moments": jnp.full((64, 64), step, jnp.float32)}, jnp.int32(step))


def position(step: int):
    data = Batches([{}] * 4)
    for _ in range(step):
        next(data)
    return data


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Two checkpoints of a model of random numbers."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(folder, keep=2)
    for step in (2, 4):
        checkpoints.save(step, state(step), position(step))
    checkpoints.close()
    load.write_model_json(folder, CONFIG, ())
    return folder


def restored(folder: Path) -> TrainState:
    data = position(0)
    checkpoints = Checkpoints(folder, keep=2)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state(4))
    found = checkpoints.restore(abstract, data)
    checkpoints.close()
    assert data.get_state() == {"next_index": checkpoints.latest}
    return found


def same(ours, theirs) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))


def files(checkpoint: Path) -> list[Path]:
    return sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size)


def test_every_file_is_listed_with_its_sha256(run):
    listed = json.loads((run / "checkpoints" / "4" / "checksums.json").read_text())
    assert listed["step"] == 4
    assert {Path(name) for name in listed["files"]} | {Path("checksums.json")} >= set(files(run / "checkpoints" / "4"))


def test_a_flipped_bit_never_reads_as_other_numbers(run, tmp_path, capsys):
    draw, whole, refused, fell_back = random.Random(0), 0, 0, 0
    expected = {step: state(step) for step in (2, 4)}
    names = files(run / "checkpoints" / "4")
    for number, name in enumerate(names * max(1, -(-60 // len(names)))):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        path = folder / "checkpoints" / "4" / name
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        for read in (loaded, exported)[: 2 if number % 4 == 0 else 0]:
            try:
                assert same(read(folder), expected[4].params), name
            except UserError as error:
                assert f"{folder}/checkpoints/4: the checkpoint is damaged" in str(error), name
                refused += 1
        found = restored(folder)
        step = int(found.step)
        assert same(found, expected[step]), name
        whole, fell_back = whole + (step == 4), fell_back + (step == 2)
        assert (step == 2) == ("resumes from update 2" in capsys.readouterr().err)
    assert whole + fell_back >= 60 and fell_back >= 50 and refused


def loaded(folder: Path) -> dict:
    return params_of(load.load_model(folder)[0])


def exported(folder: Path) -> dict:
    weights = run_weights.RunWeights(folder)
    return unflatten_dict({name: weights.read(name) for name in weights.stored})


@pytest.mark.parametrize("damage", ["gone", "empty", "half"])
def test_files_that_are_gone_or_cut_are_damage_too(run, tmp_path, damage, capsys):
    for number, name in enumerate(files(run / "checkpoints" / "4")):
        folder = tmp_path / str(number)
        shutil.copytree(run, folder)
        path = folder / "checkpoints" / "4" / name
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else path.stat().st_size // 2])
        expected = 4 if (damage, name.name) == ("gone", "checksums.json") else 2
        assert same(restored(folder), state(expected)), name
        assert ("has no checksums.json" if expected == 4 else "the checkpoint is damaged") in capsys.readouterr().err


def test_a_folder_of_a_checkpoint_without_its_contents_is_not_passed_over_in_silence(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "checkpoints" / "9").mkdir()
    with pytest.raises(UserError, match="9: the checkpoint is damaged: it holds no parameters; to use the one before it, of update 4"):
        latest_checkpoint(folder)
    assert same(restored(folder), state(4))
    assert "9: the checkpoint is damaged: it holds no parameters; it is now 9.damaged" in capsys.readouterr().err


def test_an_imported_model_has_checksums(tmp_path):
    class Source:
        config, stored = CONFIG, {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes(CONFIG).items()}

        def read(self, name, dtype=None):
            return np.asarray(flatten_dict(params(1))[name])

    run_weights.write(Source(), tmp_path / "checkpoints" / "0")
    load.write_model_json(tmp_path, CONFIG, ())
    assert same(exported(tmp_path), params(1))
    largest = max((tmp_path / "checkpoints").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(UserError, match=r"0: the checkpoint is damaged: .* there is none before it: restore an undamaged copy"):
        load.load_model(tmp_path)
