"""Configs: strict keys, overrides, and how commands fail."""

import dataclasses

import pytest

from mira_jax.commands import Command
from mira_jax.config import load, same, to_yaml
from mira_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 1e-6
    schedule: str = "constant"


@dataclasses.dataclass(frozen=True)
class Example:
    out: str = "runs/x"
    optimizer: Optimizer = Optimizer()
    templates: list[str] = dataclasses.field(default_factory=list)
    warm: Optimizer | None = None
    runs: dict[str, Optimizer] = dataclasses.field(default_factory=dict)


def test_yaml_and_overrides(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("optimizer: {learning_rate: 0.5}\nruns: {a: {schedule: cosine}}\n")
    config = load(Example, path, ["optimizer.learning_rate=1e-3", "templates=[a, b]", "warm.schedule=linear"])
    assert config.optimizer.learning_rate == 1e-3 and config.templates == ["a", "b"]
    assert config.warm.schedule == "linear" and config.runs["a"].schedule == "cosine"


def test_a_later_file_takes_precedence_key_by_key(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("out: a\noptimizer: {learning_rate: 0.5, schedule: cosine}\ntemplates: [a, b]\nruns: {a: {schedule: x}}\n")
    second.write_text("optimizer: {learning_rate: 0.25}\ntemplates: [c]\nruns: {b: {schedule: y}}\n")
    config = load(Example, [first, second], ["runs.c.schedule=z"])
    assert (config.out, config.optimizer, config.templates) == ("a", Optimizer(0.25, "cosine"), ["c"])
    assert {name: run.schedule for name, run in config.runs.items()} == {"a": "x", "b": "y", "c": "z"}
    second.write_text("optimizer: {learning_rate: fast}\n")
    with pytest.raises(UserError, match=r"second\.yaml: optimizer\.learning_rate"):
        load(Example, [first, second])
    assert load(Example, [second, first]).optimizer.learning_rate == 0.5


def test_saved_configs_load_again(tmp_path):
    config = load(Example, None, ["out=somewhere"])
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load(Example, tmp_path / "c.yaml") == config


def test_a_saved_config_names_every_default():
    config = load(Example, None, ["out=runs/x", "runs.a.schedule=cosine"])
    assert to_yaml(config) == to_yaml(Example(runs={"a": Optimizer(schedule="cosine")}))
    assert "schedule: constant" in to_yaml(config) and "learning_rate: 1.0e-06" in to_yaml(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser: {}", "unknown key optimiser; did you mean optimizer"),
        ("optimizer: {learning_rat: 1}", r"unknown key optimizer\.learning_rat; did you mean optimizer\.learning_rate"),
        ("runs: {a: {scedule: x}}", "did you mean runs.a.schedule"),
        ("warm: {scedule: x}", "did you mean warm.schedule"),
        ("optimizer: {learning_rate: fast}", r"c\.yaml: optimizer\.learning_rate: 'fast'; expected: number"),
        ("a: [", "not valid YAML"),
        ("- a", "a config is a mapping"),
    ],
)
def test_bad_configs_are_refused_with_a_remedy(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load(Example, path)


def test_missing_files_and_malformed_overrides():
    with pytest.raises(UserError, match=r"none\.yaml: cannot read"):
        load(Example, "none.yaml")
    with pytest.raises(UserError, match="expected KEY=VALUE"):
        load(Example, None, ["out"])
    with pytest.raises(UserError, match="is a value, not a group"):
        load(Example, None, ["out.x=1", "out=1", "out.y=2"][1:])


def test_commands_print_one_message_and_exit_with_2(capsys):
    def main(config):
        raise UserError("no browser found; install one")

    assert Command("example", main, Example, "doc").run([]) == 2
    assert capsys.readouterr().err == "error: no browser found; install one\n"
    assert Command("example", main, Example, "doc").run(["--set", "nope=1"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_flags_are_short_for_set():
    seen = []
    assert Command("example", seen.append, Example, "doc", flags=("out",)).run(["--out", "there"]) == 0
    assert seen[0].out == "there"


def test_switches_take_no_value_and_places_name_fields():
    @dataclasses.dataclass(frozen=True)
    class Places:
        left: str = ""
        right: str = ""
        dry_run: bool = False

    seen = []
    command = Command("places", seen.append, Places, "doc", flags=("dry_run",), positional=("left", "right"))
    for argv in ([], ["--dry-run"], ["a"], ["a", "--set", "right=c", "b"]):
        assert command.run(argv) == 0
    assert seen == [Places(), Places(dry_run=True), Places("a"), Places("a", "b")]


@pytest.mark.parametrize(
    "address", ["gs://bucket/run", "s3://bucket/run", "S3://bucket/run", "file:///tmp/run", "hdfs://host/run", "abfs://a@b/c"]
)
@pytest.mark.parametrize("key", ["out", "templates.0", "runs.a.schedule"])
def test_addresses_of_stores_are_refused_by_name_in_every_key(key, address):
    override = {"out": f"out={address}", "templates.0": f"templates=['{address}']", "runs.a.schedule": f"runs.a.schedule={address}"}[key]
    with pytest.raises(UserError, match=rf"--set: {key}: '{address}' is the address of a store"):
        load(Example, None, [override])


def test_addresses_of_sites_are_no_stores():
    assert load(Example, None, ["out=http://127.0.0.1:8000/v1"]).out == "http://127.0.0.1:8000/v1"


def test_the_same_settings_with_a_path_spelled_in_another_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites").mkdir()
    (tmp_path / "link").symlink_to("sites")
    spellings = ["sites", "./sites", "sites/", str(tmp_path / "sites"), "link", "sites/../link"]
    for one in spellings:
        assert same({"name": "a", "options": {"folders": [one]}}, {"name": "a", "options": {"folders": ("sites",)}})
    for other in ("site", "", "sites/more", None, 1, ["sites"], "si\0tes"):
        assert not same({"folder": "sites"}, {"folder": other})
    assert not same({"folder": "sites"}, {"folder": "sites", "seed": 0})
