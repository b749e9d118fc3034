"""The `mira` script: one table of commands, help that names every key, configs that can be printed and read again."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mira_jax import cli, config, schema
from mira_jax.completion import script

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "train": "configs/12b/actor.yaml",
    "serve": "configs/shop/serve.yaml",
    "evaluate": "configs/demo/evaluate.yaml",
    "collect": "configs/shop/demonstrate.yaml",
    "report": "configs/demo/report.yaml",
    "size": "configs/12b/size.yaml",
    "demo": "configs/demo/phases.yaml",
}


def mira(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mira_jax", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_the_script_runs_the_table():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"mira": "mira_jax.cli:main"}
    done = mira("--version")
    assert (done.returncode, done.stdout) == (0, f"mira {importlib.metadata.version('mira-jax')}\n")
    wrong = mira("evalute")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: mira evalute: no such command; did you mean mira evaluate?")


def test_the_list_of_commands_loads_neither_jax_nor_a_browser():
    code = "import sys; from mira_jax import cli; cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
    assert not {"jax", "playwright", "numpy", "rollouts"} & set(done.stderr.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_key_of_every_command_is_explained(name, capsys):
    command = cli.load(name)
    with pytest.raises(SystemExit):
        command.run(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: mira {name} ")
    keys = schema.keys(command.config_type)
    if name not in ("demo", "phases", "online", "serve", "report"):
        assert {f"  {path}  (" for path in leaves(config.to_tree(command.config_type()))} <= {f"  {key.path}  (" for key in keys}
    assert all(f"  {key.path}  (" in shown for key in keys)
    assert [key.path for key in keys if not key.doc and not key.kind.startswith("group") and not key.when] == []


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize("name", CONFIGS)
def test_a_printed_config_reads_back_to_the_same(name, tmp_path, capsys):
    command = cli.load(name)
    more = {"serve": ["model=x"], "evaluate": ["policy.tokenizer=x"], "report": ["evaluations={sft: a, recommended: b}"]}.get(
        name, ["out=x"]
    )
    sets = [part for one in more for part in ("--set", one)]
    assert command.run(["--config", CONFIGS[name], *sets, "--print-config"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "c.yaml").write_text(printed)
    assert command.run(["--config", str(tmp_path / "c.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    assert config.load(command.config_type, CONFIGS[name], more) == config.load(command.config_type, tmp_path / "c.yaml")


def test_a_print_of_the_demo_names_its_stages_in_any_folder(tmp_path):
    done = mira("demo", "--print-config", cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["stages"][0]["name"] == "demonstrate-first"


@pytest.fixture(scope="module")
def completion(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "mira.bash"
    path.write_text(script("bash"))
    return path


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["exp"], ["export"]),
        (["train", "--set", "optimizer.b"], ["optimizer.beta1=", "optimizer.beta2="]),
        (["score", "--set", "precision", "=", "h"], ["highest", "high"]),
        (["evaluate", "--d"], ["--dry-run"]),
        (["preflight", "eval"], ["evaluate"]),
        (["preflight", "train", "--set", "optimizer.beta1"], ["optimizer.beta1="]),
    ],
)
def test_bash_completes(completion, words, completed):
    code = 'source "$1"; shift; COMP_WORDS=(mira "$@"); COMP_CWORD=$#; _mira 2> /dev/null; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code, "bash", str(completion), *words], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split() == completed
