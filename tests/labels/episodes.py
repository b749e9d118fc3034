"""Small episodes with pages, for generators and checkers of subgoals."""

from mira_jax.trajectories.actions import ParseError, parse
from mira_jax.trajectories.records import Evidence, Outcome, Page, Policy, Status, Step, Subgoal, Task, Trajectory


def task(number=1, intent='Buy 2 of "blue lamp"', template="buy", suite="tasks", site="shop"):
    return Task(
        id=f"{suite}.{number}", suite=suite, sites=(site,), template=template, split="train", seed=0, intent=intent,
        start_url="__SHOP__/", horizon=30,
    )  # fmt: skip


def episode(number=1, *turns, success=True, last="__SHOP__/orders/7", status=Status.FINISHED, name="", milestones=(), **about):
    """`turns`: (url, page, response). `milestones`: a row for each step."""
    steps, action = [], None
    for index, (url, page, response) in enumerate(turns):
        action = error = None
        try:
            action = parse(response)
        except ParseError as problem:
            error = str(problem)
        steps.append(
            Step(
                index=index,
                page=Page(url=url, observation=page),
                response=response,
                action=action,
                error=error,
                milestones=tuple(milestones[index]) if milestones else (),
            )
        )  # fmt: skip
    subgoals = tuple(Subgoal(text=f"goal {place}", check="") for place in range(len(milestones[0]))) if milestones else ()
    answer = action.argument if action and action.name == "exit" else None
    return Trajectory(
        id=name or f"episode-{number}",
        task=task(number, **about),
        policy=Policy(name="p"),
        steps=tuple(steps),
        status=status,
        subgoals=subgoals,
        evidence=Evidence(answer=answer, page=Page(url=last, observation="thank you")),
        outcome=None if status is Status.INFRA_ERROR else Outcome(success=success, score=float(success), source="rule"),
    )


def shopping(number=1, count=2, lamp="blue lamp", **about):
    """A success that searches, opens the lamp, types the count and orders."""
    page = f"__SHOP__/product/{lamp.replace(' ', '-')}"
    form = '<input id="3" placeholder="quantity"> <button id="4">order</button>'
    return episode(
        number,
        ("__SHOP__/", '<input id="1" placeholder="search">', f'do(action="Search", argument="{lamp}", element="1")'),
        (f"__SHOP__/search?q={lamp}", f'<a id="2">{lamp}</a>', 'do(action="Click", element="2")'),
        (
            page,
            '<input id="3" placeholder="quantity"> <button id="4">order</button>',
            f'do(action="Type", argument="{count}", element="3")',
        ),
        (page, form, 'do(action="Click", element="4")'),
        ("__SHOP__/orders/7", "thank you", 'exit(message="done")'),
        intent=f'Buy {count} of "{lamp}"',
        **about,
    )
