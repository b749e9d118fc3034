"""Tasks of the next phase: proposed from failed ones, and chosen by the value of their first state and feasibility."""

import json

import msgspec
import numpy as np
import pytest

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig
from mira_jax.trajectories.records import Outcome, Page, Policy, Status, Step, Trajectory
from mira_jax.trajectories.shards import ShardReader, write_shard
from mira_jax.trajectories.side_tables import Provenance, SideTable
from rollouts import choose_tasks, collect, propose_tasks
from rollouts.choose_tasks import ChooseConfig
from rollouts.curriculum import templates
from rollouts.curriculum.templates import Rate
from rollouts.propose_tasks import ProposeConfig
from rollouts.suites import make_suite, task_list

SHARD = "episodes-00000.array_record"


def episode(task, success, number=0, status=Status.FINISHED):
    step = Step(index=0, page=Page(url="__TOURS__/", observation="x"), response='exit(message="")')
    outcome = None if status is Status.INFRA_ERROR or success is None else Outcome(success=success, score=float(success), source="rule")
    return Trajectory(
        id=f"{task.id}-{number}", task=task, attempt=number, policy=Policy(name="p"), steps=(step,), status=status, outcome=outcome
    )


@pytest.fixture(scope="module")
def arena():
    return make_suite("arena")


def test_a_failed_task_was_attempted_and_never_done(arena):
    one, two, three = arena.tasks("train", ["tour_6"], 3, 0)
    episodes = [episode(one, False), episode(two, False), episode(two, True, 1), episode(three, False, status=Status.INFRA_ERROR)]
    assert templates.failed_tasks(episodes) == [one]
    assert templates.rates(episodes) == {"tour_6": Rate(3, 1)}


@pytest.mark.parametrize(
    ("template", "rate", "expected"),
    [
        ("tour_6", Rate(10, 1), "tour_8"),
        ("tour_6", Rate(100, 4), "tour_4"),
        ("tour_6", Rate(100, 5), "tour_8"),
        ("tour_10", Rate(1, 1), "tour_10"),
        ("tour_4", Rate(1, 0), "tour_4"),
    ],
)
def test_the_neighbour_is_harder_or_where_hardly_anything_succeeds_easier(arena, template, rate, expected):
    known = arena.related(template, "train")
    assert known == ["tour_4", "tour_6", "tour_8", "tour_10"]
    steps = {name: arena.expert_steps(name) for name in known}
    # A click for each leg, and exit.
    assert steps == {"tour_4": 5, "tour_6": 7, "tour_8": 9, "tour_10": 11}
    assert templates.neighbour(template, known, steps, {template: rate}, 0.05) == expected


def test_of_equally_long_templates_the_harder_has_the_lower_rate():
    found = {"a": Rate(10, 5), "b": Rate(10, 2), "c": Rate(10, 8)}
    steps = dict.fromkeys("abc", 5)
    assert [templates.neighbour(name, "abc", steps, found, 0.05) for name in "cab"] == ["a", "b", "b"]


def test_proposed_tasks_are_new_instances_of_the_failed_and_of_their_neighbours(arena):
    tasks = arena.tasks("train", ["tour_6"], 20, 0)
    episodes = [episode(task, place % 4 == 0) for place, task in enumerate(tasks)]
    proposed = templates.propose(arena, episodes, 30, "train", 0, None, 0.05)
    assert len({task.id for task in proposed}) == 30 and not {task.id for task in proposed} & {task.id for task in tasks}
    counts = {name: sum(task.template == name for task in proposed) for name in ("tour_6", "tour_8")}
    assert counts == {"tour_6": 15, "tour_8": 15} and all(task.split == "train" for task in proposed)
    assert all(arena.task(task.id) == task for task in proposed)
    assert proposed == templates.propose(arena, episodes, 30, "train", 0, None, 0.05)
    assert {task.template for task in templates.propose(arena, episodes, 30, "train", 0, ["tour_6"], 0.05)} == {"tour_6"}
    assert templates.propose(arena, [episode(tasks[0], True)], 5, "train", 0, None, 0.05) == []


def test_the_command_writes_a_list_and_compares_it_before_using_it_again(arena, tmp_path, capsys):
    tasks = arena.tasks("train", ["tour_6"], 4, 0)
    write_shard(tmp_path / "labelled" / SHARD, [episode(task, False) for task in tasks])

    def config(**keys):
        tree = {"labelled": [str(tmp_path / "labelled")], "out": str(tmp_path / "tasks.json"), "count": 5}
        return build(ProposeConfig, tree | keys)

    propose_tasks.main(config(seed=7))
    found = task_list.read(tmp_path / "tasks.json", "arena")
    assert len(found.tasks) == 5 and found.made_from["shards"] == list(ShardReader(tmp_path / "labelled").sha256)
    propose_tasks.main(config(seed=7))
    assert "complete" in capsys.readouterr().out
    with pytest.raises(UserError, match="made from other inputs"):
        propose_tasks.main(config(seed=8))
    with pytest.raises(UserError, match="no task to propose"):
        propose_tasks.main(config(templates=["buy"], out=str(tmp_path / "other.json")))
    own = {"name": "tests.suites.own_suite:OwnSuite"}
    with pytest.raises(UserError, match=r"writer: .* draws no tasks from templates"):
        propose_tasks.main(config(suite=own, out=str(tmp_path / "other.json")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2; this version reads"),
        ({"tasks": [{"id": "x"}]}, "not a list of tasks"),
        ({"tasks": "twice"}, "occurs twice"),
    ],
)
def test_odd_lists_are_refused(arena, tmp_path, change, message):
    (task,) = arena.tasks("train", ["tour_6"], 1, 0)
    task_list.write(tmp_path / "tasks.json", [task], {})
    tree = json.loads((tmp_path / "tasks.json").read_text())
    tree |= {"tasks": tree["tasks"] * 2} if change == {"tasks": "twice"} else change
    (tmp_path / "tasks.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=message):
        task_list.read(tmp_path / "tasks.json")
    task_list.write(tmp_path / "tasks.json", [task], {})
    with pytest.raises(UserError, match="is a task of the suite 'arena', not of 'miniwob'"):
        task_list.read(tmp_path / "tasks.json", "miniwob")


@pytest.fixture
def tried(arena, tmp_path):
    """Six proposed tasks and an attempt at five of them: value of the first state, whether the expert succeeded."""
    tasks = arena.tasks("train", ["tour_6"], 6, 0)
    task_list.write(tmp_path / "proposed.json", tasks, {})
    seen = [(0.04, True), (0.05, True), (0.5, False), (0.75, True), (0.76, True)]
    episodes = [episode(task, success) for task, (_, success) in zip(tasks, seen, strict=False)]
    write_shard(tmp_path / "trial" / SHARD, episodes)
    made = Provenance(
        columns=("value",), checkpoint="critic@1", fingerprint="f", prompt=PromptConfig(), tokenizer="t", dtype="float32",
        param_dtype="float32", precision="highest",
    )  # fmt: skip
    values = {"value": np.array([value for value, _ in seen], np.float32)}
    shards = ShardReader(tmp_path / "trial").sha256
    SideTable([one.id for one in episodes], np.zeros(5), values, [made], shards).write(tmp_path / "critic.npz")
    return tmp_path, tasks


def choosing(folder, **keys):
    tree = {"proposed": str(folder / "proposed.json"), "episodes": [str(folder / "trial")], "scores": [str(folder / "critic.npz")]}
    return build(ChooseConfig, tree | {"out": str(folder / "tasks.json")} | keys)


def test_chosen_tasks_are_neither_too_easy_nor_too_hard_and_can_be_done(tried, capsys):
    folder, tasks = tried
    choose_tasks.main(choosing(folder))
    assert task_list.read(folder / "tasks.json").tasks == (tasks[1], tasks[3])
    assert "2 tasks; 6 proposed, 5 attempted, 3 of a suitable value, 2 feasible" in capsys.readouterr().out
    choose_tasks.main(choosing(folder))
    assert "complete" in capsys.readouterr().out
    with pytest.raises(UserError, match="made from other inputs"):
        choose_tasks.main(choosing(folder, lowest=0.1))
    choose_tasks.main(choosing(folder, feasible=False, out=str(folder / "all.json")))
    assert task_list.read(folder / "all.json").tasks == tuple(tasks[1:4])
    choose_tasks.main(choosing(folder, scores=[], out=str(folder / "feasible.json"), count=2))
    assert len(task_list.read(folder / "feasible.json").tasks) == 2
    with pytest.raises(UserError, match=r"no task is left \(6 proposed, 5 attempted, 0 of a suitable value, 0 feasible\)"):
        choose_tasks.main(choosing(folder, lowest=0.2, highest=0.3, out=str(folder / "none.json")))


def test_unlabelled_attempts_and_missing_values_are_refused(tried, arena):
    folder, tasks = tried
    write_shard(folder / "unlabelled" / SHARD, [episode(tasks[0], None)])
    with pytest.raises(UserError, match="has no outcome; label these episodes"):
        choose_tasks.main(choosing(folder, episodes=[str(folder / "unlabelled")], scores=[]))
    with pytest.raises(UserError, match="was not computed on these shards"):
        choose_tasks.main(choosing(folder, episodes=[str(folder / "unlabelled")]))
    with pytest.raises(UserError, match=r"lowest: 0\.8 is higher than highest"):
        choose_tasks.main(choosing(folder, lowest=0.8))


def test_a_list_is_recorded_with_the_episodes_and_compared(tmp_path, arena):
    one, two = arena.tasks("train", ["tour_6"], 2, 0)
    task_list.write(tmp_path / "one.json", [one], {})
    (tmp_path / "out").mkdir()
    given = task_list.read(tmp_path / "one.json")
    collect._same_tasks(given, tmp_path / "out")
    (tmp_path / "out" / "collect.yaml").write_text("")
    with pytest.raises(UserError, match="episodes of other tasks"):
        collect._same_tasks(given, tmp_path / "out")
    task_list.write(tmp_path / "out" / "tasks.json", given.tasks, {})
    collect._same_tasks(given, tmp_path / "out")
    with pytest.raises(UserError, match="episodes of other tasks"):
        collect._same_tasks(None, tmp_path / "out")
    with pytest.raises(UserError, match="episodes of other tasks"):
        collect._same_tasks(msgspec.structs.replace(given, tasks=(two,)), tmp_path / "out")
