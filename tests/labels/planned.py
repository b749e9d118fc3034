"""Episodes of seeking with right and wrong plans, for tests of grades, rubrics and their analyses."""

from mira_jax.trajectories.actions import parse
from mira_jax.trajectories.plan_grades import DIMENSIONS, graded
from mira_jax.trajectories.records import Evidence, Outcome, Page, Policy, Status, Step, Trajectory
from rollouts.suites.seeking.suite import SeekingSuite

SUITE = SeekingSuite()


def planned(number=0, right=True, success=None, attempt=0, template="chain_3", status=Status.FINISHED, response=None, **policy):
    """An episode of two steps, with the outcome of its plan unless another is given."""
    task = SUITE.tasks("train", [template], number + 1, seed=0)[number]
    text = SUITE.forced_response(task, '<input id="search">', right) if response is None else response
    steps = [Step(index=0, page=Page(url="__SEEKING__", observation="SECRET-PAGE"), response=text, action=parse(text))]
    last = 'exit(message="SECRET-ANSWER")'
    steps.append(Step(index=1, page=Page(url="__SEEKING__/page/x", observation="SECRET-PAGE"), response=last, action=parse(last)))
    success = right if success is None else success
    return Trajectory(
        id=f"{template}-{number}-{attempt}",
        task=task,
        attempt=attempt,
        policy=Policy(**{"name": "SECRET-POLICY", **policy}),
        steps=() if status is Status.INFRA_ERROR else tuple(steps),
        status=status,
        evidence=Evidence(answer="SECRET-ANSWER"),
        outcome=None if status is Status.INFRA_ERROR else Outcome(success=success, score=float(success), source="rule"),
    )


def grades(value=5, **changes):
    return {**dict.fromkeys(DIMENSIONS, value), **changes}


def rule_grade(value=5, source="rule", rubric="seeking 1", **changes):
    return graded(grades(value, **changes), source, rubric)
