"""Every template is found by name, and a task of one application needs nothing of the others."""

import subprocess
import sys
from pathlib import Path

import pytest

from mira_arena.sites.registry import APPLICATIONS
from mira_arena.tasks import atlas, code, forum, several, shop, shop_admin, tours
from mira_arena.tasks.habits import HABITS, LISTS
from mira_arena.tasks.registry import TEMPLATES

PACKAGES = (shop, shop_admin, forum, code, atlas, tours, several)


def test_no_two_templates_share_a_name():
    assert len(TEMPLATES) == sum(len(package.TEMPLATES) for package in PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_with_templates_is_listed(package):
    for path in Path(package.__file__).parent.glob("*.py"):
        if path.stem != "__init__" and "\nTEMPLATES = " in path.read_text():
            assert set(getattr(package, path.stem).TEMPLATES) <= set(package.TEMPLATES), path.stem


def test_every_application_says_what_its_lists_hold():
    assert set(LISTS) == set(APPLICATIONS)
    assert {habit for lists in LISTS.values() for habit in lists} == {habit for habit in HABITS if habit.startswith("takes_first")}


@pytest.mark.parametrize(
    ("package", "application"),
    [("shop", "shop"), ("shop_admin", "shop"), ("forum", "forum"), ("code", "code"), ("atlas", "atlas"), ("tours", "tours")],
)
def test_a_task_loads_no_application_but_its_own(package, application):
    """A fresh process makes an instance and its sites."""
    program = f"""
import sys
from mira_arena.sites.world import World
from mira_arena.tasks.{package} import TEMPLATES
from mira_arena.tasks.templates import make_instance
made = make_instance(TEMPLATES[0], "test", 1)
World(made.task.seed, made.draft.setup).snapshot(made.template.applications)
print(*sorted({{name.split(".")[2] for name in sys.modules if name.startswith("mira_arena.sites.")}} & {set(APPLICATIONS)}))
print(*(name for name in ("jax", "playwright", "rollouts") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout == f"{application}\n\n"
