"""What commands refuse before they write: folders in use, stores, and odd configs of runs."""

import pytest

from mira_jax import export, import_model, score
from mira_jax.errors import UserError
from mira_jax.files import sole_writer
from mira_jax.training.run_folder import CONFIG


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        (export, ["--set", "checkpoint=x"]),
        (score, ["--set", "episodes=[x]", "--set", "policy=x"]),
        (import_model, ["--set", "model=x"]),
    ],
)
def test_one_writer_at_a_time_in_every_output_folder(tmp_path, capsys, module, flags):
    out = tmp_path / "out"
    with sole_writer(out, "something"):
        assert module.COMMAND.run([*flags, "--set", f"out={out}"]) == 2
    assert f"{out}: another process is writing" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("text", [b"", b"\xff", b"[1]", b"data: 3", b"data: {prompt: }"])
def test_scoring_never_guesses_how_a_run_was_prompted(tmp_path, text):
    (tmp_path / CONFIG).write_bytes(text)
    with pytest.raises(UserError, match=r"config\.yaml: "):
        score._prompt(str(tmp_path))


@pytest.mark.parametrize("text", [b"\xff", b"[1]", b"a: ["])
def test_export_names_an_odd_config(tmp_path, text):
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / CONFIG).write_bytes(text)
    with pytest.raises(UserError, match=r"config\.yaml: "):
        export.find_origin(tmp_path)
