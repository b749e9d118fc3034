"""What a judge model is shown of an episode. Nothing in it says which policy made the episode."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mira_jax.trajectories.records import Status, Trajectory
from rollouts.llm.images import image_part

SHORT = 300
"""Maximum characters of an address and of an error."""
ENDINGS = {
    Status.FINISHED: "the agent ended the episode",
    Status.HORIZON: "the agent had taken the maximum number of steps",
    Status.STUCK: "the agent repeated itself and was stopped",
    Status.PARSE_FAILURES: "the agent's responses could not be read and it was stopped",
}


def episode_data(trajectory: Trajectory, max_characters: int) -> dict[str, Any]:
    """The steps of an episode and its end, for JSON.

    Every step is kept. A page that was shown before is named by the step where it was. Pages, responses and the answer are cut to equal
    lengths if together they exceed `max_characters`; short ones leave their share to the others.
    """
    end, steps = trajectory.evidence, trajectory.steps
    pages = [step.page for step in steps]
    texts = [*{page.observation for page in (*pages, *([end.page] if end.page else []))}, *(step.response for step in steps)]
    limit = equal_share([len(text) for text in [*texts, end.answer or ""]], max_characters)
    shown: dict[str, int] = {}
    data: dict[str, Any] = {"steps": []}
    for step in steps:
        entry = {"step": step.index, "address": step.page.url[:SHORT], **_page(step.page.observation, step.index, shown, limit)}
        entry |= _cut("response", step.response, limit) | ({"error": step.error[:SHORT]} if step.error else {})
        data["steps"].append(entry)
    data["end"] = {"step": len(steps), "reason": ENDINGS[trajectory.status]}
    if end.answer is not None:
        data["end"] |= _cut("answer", end.answer, limit)
    if end.page:
        data["end"] |= {"address": end.page.url[:SHORT], **_page(end.page.observation, len(steps), shown, limit)}
    return data


def screenshots(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    """Parts of a message: each different screenshot, named by the first step that has it."""
    pages = [*((step.index, step.page) for step in trajectory.steps), (len(trajectory.steps), trajectory.evidence.page)]
    seen: set[bytes] = set()
    for number, page in pages:
        if page and page.screenshot and page.screenshot not in seen:
            seen.add(page.screenshot)
            yield {"type": "text", "text": f"Screenshot of step {number}, which is data too:"}
            yield image_part(page.screenshot)


def as_json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)


def equal_share(lengths: Sequence[int], total: int) -> int:
    """The largest L for which the sum of min(length, L) is at most `total`. The largest length if their sum is at most `total`."""
    left = total
    for index, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - index)
        if length > share:
            return share
        left -= length
    return max(lengths, default=0)


def _page(text: str, step: int, shown: dict[str, int], limit: int) -> dict[str, Any]:
    if text in shown:
        return {"same_page_as_step": shown[text]}
    shown[text] = step
    return _cut("page", text, limit)


def _cut(name: str, text: str, limit: int) -> dict[str, Any]:
    return {name: text} if len(text) <= limit else {name: text[:limit], f"{name}_cut_at": limit}
