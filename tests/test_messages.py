"""Messages about configs name the key's whole path and where its value is from, in every command."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from mira_jax import cli, config, schema
from mira_jax.errors import ConfigError, UserError

ROOT = Path(__file__).parents[1]
NAMES = (
    "collect",
    "label",
    "train",
    "score",
    "replay",
    "diagnose",
    "propose-tasks",
    "choose-tasks",
    "serve",
    "evaluate",
    "compare",
    "analyze",
    "subgoals",
    "rubric",
    "report",
    "export",
    "convert",
    "import-model",
    "size",
    "phases",
    "arena",
)
NEEDED = {"serve": ["model=x"], "report": ["evaluations={a: b}"], "phases": ["stages=[]"]}
NO_KEYS = {"task", "error", "warning"}
"""First words of messages that look like a key."""
ELSEWHERE = {"model.embed_tokens.weight"}
"""Names of something else that begin as a group of keys does."""


def known() -> dict[str, list[schema.Key]]:
    return {name: schema.keys(cli.load(name).config_type) for name in NAMES}


def paths(keys) -> set[str]:
    """Every path and the groups above it."""
    found = set()
    for key in keys:
        parts = key.path.split(".")
        found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_value_of_any_key_is_named_with_its_path_and_origin(name, tmp_path):
    command = cli.load(name)
    for key in schema.keys(command.config_type):
        if key.kind == "any value" or key.when.startswith("suite.name=") or {"N", "NAME"} & set(key.path.split(".")):
            continue
        wrong = "x" if key.kind.startswith(("group", "mapping", "list of groups")) else "{a: {b: 1}}"
        first = [*NEEDED.get(name, []), *key.when.split()]
        first = [one for one in first if not one.startswith(f"{key.path}=")]
        if key.path.startswith("model.sizes.") or key.path.startswith("sizes."):
            continue  # Checked where the rest of the sizes is known.
        with pytest.raises(ConfigError) as refusal:
            config.load(command.config_type, None, [*first, f"{key.path}={wrong}"])
        assert str(refusal.value).startswith(f"--set: {key.path}: "), str(refusal.value)
        tree = {}
        for override in [*first, f"{key.path}={wrong}"]:
            place, _, value = override.partition("=")
            *parents, last = place.split(".")
            group = tree
            for parent in parents:
                group = group.setdefault(parent, {})
            group[last] = yaml.safe_load(value)
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
        with pytest.raises(ConfigError) as refusal:
            config.load(command.config_type, tmp_path / "c.yaml")
        assert str(refusal.value).startswith(f"{tmp_path}/c.yaml: {key.path}: "), str(refusal.value)


def test_defaults_and_flags_are_origins_too(capsys):
    assert cli.load("train").run(["--set", "data.folders=[x]"]) == 2
    assert capsys.readouterr().err == "error: out: give the folder of the run, for example --out runs/sft\n"
    assert cli.load("size").run(["--preset", "13b"]) == 2
    assert capsys.readouterr().err == "error: --preset: preset: '13b' is none of 270m, 1b, 4b, 12b, 27b\n"
    assert cli.load("collect").run(["--out", "x", "--set", "split=dev", "--set", "policy.kind=idle"]) == 2
    assert capsys.readouterr().err.startswith("error: --set: split: 'dev' is none of ")


def test_the_key_of_a_judge_is_the_judge_s(tmp_path):
    options = ["suite.name=webarena_lite", "suite.options.judge.endpoint.base_url=localhost"]
    with pytest.raises(UserError, match=r"^--set: suite\.options\.judge\.endpoint\.base_url: 'localhost' is not an http address"):
        config.load(cli.load("label").config_type, None, options)
    (tmp_path / "c.yaml").write_text("suite: {name: webarena_lite, options: {accounts: {gitlab: {user: A}}}}")
    with pytest.raises(UserError, match=r"c\.yaml: suite\.options\.accounts\.gitlab: name the environment variables"):
        config.load(cli.load("label").config_type, tmp_path / "c.yaml")


def raised() -> list[tuple[str, str, ast.Raise, list[str]]]:
    """(file, class, statement, texts) of every error for the user; a place in a text that is filled in is {}."""
    found = []
    for package in ("mira_jax", "rollouts", "mira_arena"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            owners = {id(node): one.name for one in ast.walk(tree) if isinstance(one, ast.ClassDef) for node in ast.walk(one)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Raise) and getattr(getattr(node.exc, "func", None), "id", "") in ("UserError", "ConfigError"):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", owners.get(id(node), ""), node, _texts(node)))
    return found


def _texts(node) -> list[str]:
    inner = {id(part) for one in ast.walk(node) if isinstance(one, ast.JoinedStr) for part in ast.walk(one) if part is not one}
    texts = []
    for one in ast.walk(node):
        if isinstance(one, ast.JoinedStr):
            texts.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in one.values))
        elif isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in inner:
            texts.append(one.value)
    return texts


def test_every_key_that_a_message_names_is_one():
    every = set().union(*(paths(keys) for keys in known().values()))
    groups = {path.partition(".")[0] for path in every if "." in path}
    leaves = {path.rpartition(".")[2] for path in every}
    wrong = []
    for place, _, _, texts in raised():
        for text in texts:
            named = re.findall(r"--set ([a-z_][a-z_.0-9]*)=", text)
            named += [word for word in re.findall(r"(?<![\w/`.])[a-z_]+(?:\.[a-z_0-9]+)+", text) if word.partition(".")[0] in groups]
            if first := re.match(r"([a-z_]+(?:\.[a-z_{}]+)*): ", text):
                named += [first[1]] if first[1].partition(".")[0] in groups or first[1] in leaves else []
            for name in named:
                plain = name.partition(".{}")[0]
                named_by_user = f"{plain.rpartition('.')[0]}.NAME" in every
                if (
                    not named_by_user
                    and plain not in every
                    and plain not in NO_KEYS | ELSEWHERE
                    and not plain.endswith((".py", ".json", ".yaml", ".html"))
                ):
                    wrong.append(f"{place}: {name}: {text[:80]}")
    assert wrong == [], "\n".join(wrong)


def test_every_check_of_a_config_class_names_a_key_of_it():
    classes = {}
    for package in ("mira_jax", "rollouts", "mira_arena"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    classes[node.name] = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign)}
    every = set().union(*(paths(keys) for keys in known().values()))
    for place, owner, node, _ in raised():
        call = node.exc
        if call.func.id == "ConfigError" and isinstance(call.args[0], ast.Constant):
            key = call.args[0].value
            assert not key or key.partition(".")[0] in classes.get(owner, ()) or key in every, f"{place}: {key}"
