"""Grades a plan by rules, in the six dimensions of a rubric: the plan that the question needs is known.

The hops of the written plan are matched one to one with those of the true plan, by relation and condition. A hop that starts from a name
that is not in the question is never matched. A matched hop is placed right if it starts from the true name, or from an earlier hop that
is matched with the true one. Grades are floor(5 share), so that 5 means all.

| dimension | share |
|---|---|
| goal_alignment | of the true plan's last hops, those whose relation the written plan's last hops have |
| subgoal_coverage | matched hops that the last hops depend on, of the hops of the longer of both plans |
| order | of the true hops, those placed right |
| constraint_coverage | of the names and conditions of the question, those whose hop is placed right |
| economy | of the pieces of the written plan, those matched |

tool_appropriateness is 5 for a search for (or a visit of) the name that the first hop starts from, 3 for one that also has other words,
and 0 for other actions. Without a plan all grades are 0. With several plans each grade is the lowest among them, and economy is 0.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from mira_arena.seeking.answers import normalise
from mira_arena.seeking.forms import Count, Difference, Earliest, Form, Greater, Named, OfTwo, OverMany, Select, Total
from mira_arena.seeking.plans import make_plan
from mira_arena.seeking.world import World
from mira_jax.trajectories.plan_grades import DIMENSIONS, HIGHEST, graded
from mira_jax.trajectories.records import Action, PlanGrade
from rollouts.suites.seeking.plan_text import PlannedHop, WrittenPlan, read_plans

RULES = "seeking 1"
"""Name and version of these rules. A change of a grade needs another version."""
_OPERATIONS = {
    Count: ("count",),
    Total: ("sum", "total"),
    Earliest: ("earliest", "compare"),
    Greater: ("greater", "greatest", "later", "compare"),
    Difference: ("difference",),
}
_NEARLY = 3


@dataclasses.dataclass(frozen=True)
class _TrueHop:
    relation: str
    names: frozenset[str]
    """The names of what it starts from, normalised. Empty: it starts from the hop `after`."""
    after: int
    """Index of the hop that it starts from. -1: a name."""
    condition: tuple[str, str]
    """Test and value, ("", "") without."""
    constrains: bool
    """Whether the question's names, conditions, counts or comparisons are about it."""
    last: bool
    """Whether no other hop starts from it."""


@dataclasses.dataclass(frozen=True)
class _Matched:
    """A written plan, and the index of the true hop of each of its hops. None: no one needs it."""

    hops: Sequence[PlannedHop]
    true: Sequence[int | None]

    def index(self, number: int, before: int) -> int | None:
        """Index of the hop with that number, if it is before another."""
        return next((index for index, hop in enumerate(self.hops[:before]) if number and hop.number == number), None)


def grade_plan(form: Form, world: World, response: str, action: Action | None) -> PlanGrade:
    """Grades the plan in a response.

    Args:
        form: of the question.
        action: the action of the response. None: it has none.
    """
    plans = read_plans(response)
    if not plans:
        return graded(dict.fromkeys(DIMENSIONS, 0), "rule", RULES, "no plan")
    truth = _true_hops(form, world)
    grades, missing = zip(*(_grade(form, truth, plan, action) for plan in plans), strict=True)
    lowest = {name: min(one[name] for one in grades) for name in DIMENSIONS}
    detail = f"not in the plan: {', '.join(missing[0])}" if missing[0] else ""
    if len(plans) > 1:
        lowest["economy"], detail = 0, f"{len(plans)} plans"
    return graded(lowest, "rule", RULES, detail)


def _grade(form: Form, truth: Sequence[_TrueHop], plan: WrittenPlan, action: Action | None) -> tuple[dict[str, int], list[str]]:
    """The grades, and the relations that the plan lacks."""
    # A hop with no meaning stands for each operation that the question does not ask for.
    strange = [PlannedHop(0) for operation in plan.operations if not _is_asked(form, plan, *operation)]
    hops = [*plan.hops, *strange]
    known = [hop if hop.after or _is_named(hop, truth) else PlannedHop(hop.number) for hop in hops]
    matched = _match(known, truth)
    placed = set(_placed(matched, truth))
    asked = [hop.relation for hop in truth if hop.last]
    ends = _ends(known, len(asked))
    needed = _needed(matched, ends)
    covered = sum(matched.true[index] is not None for index in needed)
    constraints = [index for index, hop in enumerate(truth) if hop.constrains]
    shares = {
        "goal_alignment": (_common([known[index].relation for index in ends], asked), len(asked)),
        "subgoal_coverage": (covered, max(len(truth), len(needed))),
        "order": (len(placed), len(truth)),
        "constraint_coverage": (sum(index in placed for index in constraints), len(constraints)),
        "economy": (sum(one is not None for one in matched.true), len(known)),
    }
    grades = {name: HIGHEST * part // whole for name, (part, whole) in shares.items()}
    grades["tool_appropriateness"] = _tool(known, truth, action)
    return grades, [hop.relation for index, hop in enumerate(truth) if index not in matched.true]


def _true_hops(form: Form, world: World) -> list[_TrueHop]:
    plan = make_plan(form)
    names = {written: frozenset(normalise(name) for name in all_names) for written, all_names in _names(form, world)}
    conditions = dict(_conditions(form))
    used = {hop.of for hop in plan}
    found = []
    for number, hop in enumerate(plan, 1):
        last, starts = str(number) not in used, names.get(hop.of, frozenset())
        constrains = bool(starts) or number in conditions or (last and isinstance(form, OfTwo | OverMany))
        after = -1 if starts else int(hop.of) - 1
        found.append(_TrueHop(hop.relation, starts, after, conditions.get(number, ("", "")), constrains, last))
    return found


def _names(form: Form, world: World) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each name in the question, and all names of its entity."""
    if isinstance(form, OfTwo):
        yield from _names(form.first, world)
        yield from _names(form.second, world)
    elif isinstance(form, Named):
        alias = world.entities[form.name].alias
        yield form.called or form.name, (form.name, alias) if alias else (form.name,)
    else:
        yield from _names(form.base, world)


def _conditions(form: Form) -> list[tuple[int, tuple[str, str]]]:
    """Number of a hop in the plan, and the condition of the question on it."""
    if isinstance(form, OfTwo):
        before = len(make_plan(form.first)) + 1
        return [*_conditions(form.first), *((before + number, test) for number, test in _conditions(form.second))]
    if isinstance(form, Named):
        return []
    found = _conditions(form.base)
    if isinstance(form, Select):
        return [*found, (len(make_plan(form)), ("is", normalise(form.value)))]
    return [*found, (len(make_plan(form)), ("after", str(form.after)))] if isinstance(form, Count) else found


def _is_asked(form: Form, plan: WrittenPlan, word: str, numbers: Sequence[int]) -> bool:
    allowed = {hop.number for hop in plan.hops if hop.number} | ({form.after} if isinstance(form, Count) else set())
    return word in _OPERATIONS.get(type(form), ()) and set(numbers) <= allowed


def _is_named(hop: PlannedHop, truth: Sequence[_TrueHop]) -> bool:
    return any(hop.start in one.names for one in truth)


def _match(hops: Sequence[PlannedHop], truth: Sequence[_TrueHop]) -> _Matched:
    """Matches hops that would be placed right first, then the others with what is left."""
    true: list[int | None] = [None] * len(hops)
    free = set(range(len(truth)))
    matched = _Matched(hops, true)
    for strictly in (True, False):
        for index, hop in enumerate(hops):
            if true[index] is None:
                fitting = (one for one in sorted(free) if _fits(hop, truth[one]) and (not strictly or _starts(matched, index, truth[one])))
                true[index] = next(fitting, None)
                free -= {true[index]}
    return matched


def _fits(hop: PlannedHop, one: _TrueHop) -> bool:
    return hop.relation == one.relation and (hop.test, hop.value) in (("", ""), one.condition)


def _starts(matched: _Matched, index: int, one: _TrueHop) -> bool:
    """Whether the hop at the index starts from what the true hop starts from."""
    hop = matched.hops[index]
    if one.after < 0:
        return hop.start in one.names
    earlier = matched.index(hop.after, index)
    return earlier is not None and matched.true[earlier] == one.after


def _placed(matched: _Matched, truth: Sequence[_TrueHop]) -> Iterator[int]:
    """Indices of the true hops whose written hop starts from the right place."""
    for index, one in enumerate(matched.true):
        if one is not None and _starts(matched, index, truth[one]):
            yield one


def _ends(hops: Sequence[PlannedHop], count: int) -> list[int]:
    """Indices of the last hops that no other hop starts from, at most so many."""
    used = {hop.after for hop in hops if hop.after}
    return [index for index, hop in enumerate(hops) if hop.number not in used][-count:]


def _needed(matched: _Matched, ends: Sequence[int]) -> set[int]:
    """Indices of the hops that the last ones depend on, with themselves."""
    found: set[int] = set()
    for end in ends:
        at: int | None = end
        while at is not None:
            found.add(at)
            at = matched.index(matched.hops[at].after, at)
    return found


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many the lists have in common, with repetitions."""
    return sum(min(one.count(name), other.count(name)) for name in set(other))


def _tool(hops: Sequence[PlannedHop], truth: Sequence[_TrueHop], action: Action | None) -> int:
    first = next((hop for hop in hops if hop.start), None)
    if first is None or action is None or action.name not in ("Search", "Click"):
        return 0
    names = next(one.names for one in truth if first.start in one.names)
    query = normalise((action.argument if action.name == "Search" else action.element) or "")
    if any(query in (name, f"{name} {first.relation}", f"{first.relation} {name}", f"{first.relation} of {name}") for name in names):
        return HIGHEST
    return _NEARLY if any(f" {name} " in f" {query} " for name in names) else 0
