"""Bad input at the command line: one message that names the thing, exit code 2, and nothing half-written."""

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence

import msgspec
import pytest
from flax import nnx

from mira_jax.models import huggingface
from mira_jax.models.config import Gemma3Config
from mira_jax.models.gemma3 import Gemma3
from mira_jax.trajectories.records import FORMAT, Policy, Status, Trajectory
from mira_jax.trajectories.shards import ShardReader, write_shard
from rollouts.suites import make_suite
from tests import synthetic

MODULES = (
    "rollouts.collect",
    "rollouts.label",
    "rollouts.evaluate",
    "rollouts.report",
    "mira_jax.train",
    "mira_jax.score",
    "mira_jax.serve",
    "mira_jax.export",
    "mira_jax.import_model",
    "mira_jax.phases",
)
TINY = {"width": 16, "layers": 1, "query_heads": 1, "kv_heads": 1, "head_dim": 16, "mlp_width": 32}
SHARD = "episodes-00000.array_record"
ENDPOINT = ["policy.kind=endpoint", "policy.tokenizer={data}/model", "policy.endpoint.base_url=http://127.0.0.1:9/v1"]
EXPERT = ["policy.kind=expert", "episodes=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Good episodes and a good model, and a damaged form of each."""
    data = tmp_path_factory.mktemp("data")
    episodes = synthetic.write_folder(data / "episodes", count=4)
    for name in ("cut", "altered"):
        shutil.copytree(episodes, data / name)
        content = bytearray((episodes / SHARD).read_bytes())
        content[len(content) // 2] ^= 255
        (data / name / SHARD).write_bytes(content if name == "altered" else content[: len(content) // 2])
    write_shard(data / "newer" / SHARD, [msgspec.structs.replace(item, format=FORMAT + 1) for item in ShardReader(episodes)])
    task = make_suite("arena").tasks("train", None, 1, 0)[0]
    write_shard(data / "arena" / SHARD, [Trajectory(id="a", task=task, policy=Policy(name="p"), status=Status.HORIZON)])

    tokenizer = synthetic.write_tokenizer(data / "tokenizer.model")
    huggingface.save(Gemma3(Gemma3Config(vocabulary_size=400, **TINY), rngs=nnx.Rngs(0)), data / "model", tokenizer)
    shutil.copytree(data / "model", data / "wrong_shape")
    config = json.loads((data / "model" / "config.json").read_text())
    (data / "wrong_shape" / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    (data / "file").write_text("")
    (data / "latin.yaml").write_bytes(b"out: caf\xe9\n")
    return data


@pytest.fixture
def refuse(data, tmp_path, capsys):
    """Runs a command that must be refused; `{data}` and `{out}` are filled in. Nothing may be left at `{out}`."""

    def refuse(module: str, settings: list[str], message: str, config: str | None = None) -> None:
        fill = {"data": str(data), "out": str(tmp_path / "out")}
        argv = [part for setting in settings for part in ("--set", _fill(setting, fill))]
        argv += ["--config", _fill(config, fill)] if config else []
        assert importlib.import_module(module).COMMAND.run(argv) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and message in errors[0]
        assert not list(tmp_path.iterdir())

    return refuse


def process(
    module: str, arguments: list[str], env: dict[str, str] | None = None, through: Sequence[str] = ()
) -> subprocess.CompletedProcess:
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **(env or {})}
    command = [*through, sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def _fill(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


@pytest.mark.parametrize("module", MODULES)
def test_configs(refuse, module):
    refuse(module, ["sead=1"], "unknown key sead; did you mean")
    refuse(module, [], "nowhere.yaml: cannot read the config", config="{data}/nowhere.yaml")
    refuse(module, [], "cannot read the config: Is a directory", config="{data}")
    refuse(module, [], "latin.yaml: not a config, which is YAML in UTF-8", config="{data}/latin.yaml")
    if module == "mira_jax.serve":
        refuse(module, ["port=x"], "--set: port: 'x'; expected: integer")
    else:
        refuse(module, ["out=[1]"], "--set: out: [1]; expected: string")


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "nowhere: no such folder of episodes"),
        ("model", "model: no shards here; collect episodes first"),
        ("cut", f"{SHARD}: the shard is cut short or altered"),
        ("altered", f"{SHARD}: the shard is cut short or altered"),
        ("newer", f"trajectory format {FORMAT + 1} is newer than {FORMAT}, the newest this mira_jax reads; update mira_jax"),
    ],
)
def test_episodes(refuse, folder, message):
    refuse("rollouts.label", [f"folder={{data}}/{folder}", "out={out}"], message)
    refuse("rollouts.report", [f"evaluations={{a: {{data}}/{folder}}}", "out={out}"], message)
    refuse("mira_jax.train", [f"data.folders=[{{data}}/{folder}]", "init_from={data}/model", "out={out}"], message)
    refuse("mira_jax.score", [f"episodes=[{{data}}/{folder}]", "policy={data}/model", "out={out}"], message)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "nowhere"),
        ("episodes", "episodes"),
        ("wrong_shape", "tensor model.layers.0.mlp.gate_proj.weight has shape (32, 16); config.json says (40, 16)"),
    ],
)
def test_models(refuse, folder, message):
    train = ["data.folders=[{data}/episodes]", "data.row_length=1024", "data.prompt.max_tokens=900", "out={out}"]
    refuse("mira_jax.train", [*train, f"init_from={{data}}/{folder}"], message)
    refuse("mira_jax.score", ["episodes=[{data}/episodes]", f"policy={{data}}/{folder}", "out={out}"], message)
    refuse("mira_jax.serve", [f"model={{data}}/{folder}", "port=0"], message)
    refuse("mira_jax.export", [f"checkpoint={{data}}/{folder}", "out={out}"], message)
    refuse("mira_jax.import_model", [f"model={{data}}/{folder}", "out={out}"], message)


@pytest.mark.parametrize("module", ["rollouts.collect", "rollouts.evaluate"])
def test_no_endpoint_and_no_tokenizer(refuse, module):
    refuse(module, [*ENDPOINT, "out={out}"], "cannot reach the endpoint")
    refuse(module, ["policy.kind=endpoint", "policy.tokenizer={data}/nowhere", "out={out}"], "no tokenizer")
    refuse(module, [*EXPERT, "browser.width=-5", "out={out}"], "--set: browser.width: -5; it must be at least 1")


@pytest.mark.parametrize("module", ["rollouts.collect", "rollouts.evaluate", "rollouts.web.browser"])
def test_no_browser(module, tmp_path):
    settings = [] if module == "rollouts.web.browser" else ["--set", EXPERT[0], "--set", EXPERT[1], "--out", str(tmp_path / "out")]
    done = process(module, settings, env={"PATH": "/nowhere", "PLAYWRIGHT_BROWSERS_PATH": "/nowhere"})
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: no browser found: install") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = process("mira_arena", ["--port", str(taken.getsockname()[1])])
    assert done.returncode == 2
    assert done.stderr.startswith("error: port ") and "choose another" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        ("rollouts.collect", EXPERT),
        ("rollouts.evaluate", EXPERT),
        ("rollouts.label", ["folder={data}/arena"]),
        ("rollouts.report", ["evaluations={a: {data}/episodes}"]),
        ("mira_jax.train", ["data.folders=[{data}/episodes]", "init_from={data}/model"]),
        ("mira_jax.score", ["episodes=[{data}/episodes]", "policy={data}/model"]),
        ("mira_jax.export", ["checkpoint={data}/model"]),
        ("mira_jax.import_model", ["model={data}/model"]),
    ],
)
def test_a_file_where_the_folder_should_be(refuse, data, module, settings):
    refuse(module, [*settings, "out={data}/file"], "choose another folder" if module == "mira_jax.import_model" else "choose another")
    assert (data / "file").read_text() == ""


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        ("rollouts.label", ["folder={data}/arena"]),
        ("rollouts.report", ["evaluations={a: {data}/episodes}"]),
        ("mira_jax.score", ["episodes=[{data}/episodes]", "policy={data}/model"]),
        ("mira_jax.export", ["checkpoint={data}/model"]),
        ("mira_jax.import_model", ["model={data}/model"]),
    ],
)
def test_a_full_disk(data, tmp_path, module, settings):
    """As a process that can't write a byte to a file."""
    fill = {"data": str(data), "out": str(tmp_path / "out")}
    argv = [part for setting in [*settings, "out={out}"] for part in ("--set", _fill(setting, fill))]
    done = process(module, argv, through=["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"])
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "free some disk space" in errors[0] and "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_numbers_that_can_not_be(refuse):
    refuse("mira_jax.serve", ["model={data}/model", "warm_up=[0]"], "warm_up: 0: with max_length 4096, prompts have 1 to 4094 tokens")
    refuse(
        "mira_jax.score",
        ["episodes=[{data}/episodes]", "policy={data}/model", "out={out}", "rows=0"],
        "--set: rows: 0; it must be at least 1",
    )
    refuse("rollouts.collect", ["episodes=-1", *EXPERT[:1], "out={out}"], "--set: episodes: -1; it must be at least 1")
    refuse(
        "rollouts.collect",
        [*EXPERT, "browser.screenshot_quality=500", "out={out}"],
        "screenshot_quality: 500; it must be at least 0 and at most 100",
    )
