"""Made-up episodes in the real record format, for tests that need data but no browser.

The task names a few things in quotes; at each step one of them stands on the page among others, and the right
response clicks it. Learnable by a tiny model in seconds.
"""

import random
from pathlib import Path

from mira_jax.trajectories.records import Action, Outcome, Page, Policy, Status, Step, Subgoal, Task, Trajectory
from mira_jax.trajectories.shards import write_shard
from mira_jax.trajectories.tokenizer import train_tokenizer

COLOURS = ("red", "blue", "green", "black", "white", "grey")
THINGS = ("lamp", "chair", "clock", "mug", "rug", "vase")
SYMBOLS = ('do(action="Click", element="', '")', '<a id="', '">', '"', " ")


def trajectory(number: int, steps: int = 3, success: bool | None = None, status: Status | None = None, seed: int = 0) -> Trajectory:
    """Episode `number` of `steps` steps: its subgoal j is to click the j-th thing. A failed one goes wrong at its last step."""
    draw = random.Random(f"{seed}/{number}")
    names = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    draw.shuffle(names)
    wanted, others = names[:steps], names[steps:]
    if success is None:
        success = draw.random() < 0.5
    status = status or (Status.FINISHED if success else Status.HORIZON)
    made = []
    for index, name in enumerate(wanted):
        choices = [name, *draw.sample(others, 2)]
        draw.shuffle(choices)
        right = success or index < steps - 1
        clicked = name if right else next(choice for choice in choices if choice != name)
        made.append(
            Step(
                index=index,
                page=Page(url=f"__SHOP__/{index}", observation="\n".join(f'<a id="{choice}">' for choice in choices)),
                response=f'do(action="Click", element="{clicked}")',
                action=Action(name="Click", element=clicked),
                state={"clicked": index + 1},
                milestones=tuple(j < index or (j == index and right) for j in range(steps)),
                log_prob=-draw.random(),
            )
        )
    infra = status is Status.INFRA_ERROR
    return Trajectory(
        id=f"episode-{seed}-{number}",
        task=Task(
            id=f"synthetic.copy.train.{number}", suite="synthetic", sites=("shop",), template="copy", split="train", seed=number,
            intent="Click " + " then ".join(f'"{name}"' for name in wanted), start_url="__SHOP__/", horizon=steps,
        ),
        policy=Policy(name="synthetic", seed=seed),
        subgoals=tuple(Subgoal(text=f"click {name}", check=f"clicked>{index}") for index, name in enumerate(wanted)),
        steps=tuple(made),
        status=status,
        outcome=None if infra else Outcome(success=success, score=float(success), source="rule"),
        error="the browser died" if infra else "",
    )  # fmt: skip


def trajectories(count: int, seed: int = 0, most_steps: int = 4, infra_every: int = 0) -> list[Trajectory]:
    """`count` episodes of 1 to `most_steps` steps; every `infra_every`-th ended in an infrastructure error."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        broken = infra_every and number % infra_every == infra_every - 1
        made.append(trajectory(number, draw.randint(1, most_steps), status=Status.INFRA_ERROR if broken else None, seed=seed))
    return made


def write_folder(folder: str | Path, count: int = 20, seed: int = 0, most_steps: int = 4, infra_every: int = 0) -> Path:
    """One shard of `trajectories(...)` in `folder`."""
    folder = Path(folder)
    write_shard(folder / "episodes-00000.array_record", trajectories(count, seed, most_steps, infra_every))
    return folder


def write_tokenizer(path: str | Path, vocabulary_size: int = 320) -> Path:
    """A tokenizer that knows these texts."""
    episodes = trajectories(50)
    texts = [item.task.intent for item in episodes]
    texts += [text for item in episodes for step in item.steps for text in (step.response, step.page.observation)]
    train_tokenizer(texts, path, vocabulary_size, SYMBOLS)
    return Path(path)
