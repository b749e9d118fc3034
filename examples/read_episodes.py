"""Reads trajectory shards and prints what the policy did.

    python examples/read_episodes.py runs/demos-labelled

For each episode it prints the task, how the episode ended and its outcome, then one line per step: the milestones that are
done after the step (x) or not (.), the page, and the action or the error. Needs no JAX and no browser.
"""

import sys

from mira_jax.trajectories.records import Step, Trajectory
from mira_jax.trajectories.shards import ShardReader


def describe(step: Step) -> str:
    milestones = "".join("x" if done else "." for done in step.milestones)
    action = step.error or (" ".join(filter(None, (step.action.name, step.action.element, step.action.argument))) if step.action else "-")
    return f"  {step.index:>3} {milestones} {step.page.url}  {action}"


def outcome(episode: Trajectory) -> str:
    if episode.outcome is None:
        return "no outcome"
    return " ".join(filter(None, ("success" if episode.success else "failure", episode.outcome.detail)))


def main(folder: str) -> None:
    episodes = ShardReader(folder)
    for episode in episodes:
        print(f"{episode.task.id} by {episode.policy.name}: {episode.task.intent}")
        print(f"  {episode.status.value} after {len(episode.steps)} steps, {outcome(episode)}")
        for step in episode.steps:
            print(describe(step))
    judged = [episode for episode in episodes if episode.outcome is not None]
    print(f"{sum(episode.success for episode in judged)} of {len(judged)} judged episodes are successes")


if __name__ == "__main__":
    main(*sys.argv[1:])
