"""A phase of MiRA on the example site whose labels come from a chat model, in miniature, every stage a process. A local server plays it."""

import contextlib
import dataclasses
import json
import zlib
from collections import Counter

import pytest

from mira_jax import phases
from mira_jax.config import load
from mira_jax.stages import PhasesConfig
from mira_jax.trajectories.shards import ShardReader
from tests.json_server import serving_json
from tests.test_ring_phases import SIZES, small

SMALL = {
    "sft": {"model.sizes": SIZES},
    "explore": {"episodes": 16, "limits.horizon": 3},
    "critic-0": {"early_stopping.every": 1},
    "critic-1": {"early_stopping.every": 1},
    "mira": {"data.accept_weak_critics": True},
    "evaluate-mira": {"limits.horizon": 2},
}
HOPELESS = 7
"""One of this number of instructions gets only garbage as its subgoals, and one of this number of episodes as its verdict."""


def reply(form, question, data):
    """The answer of the model in a form, determined by the question."""
    chance = zlib.crc32(question.encode())
    if form == "Written":
        if zlib.crc32(data["instruction"].encode()) % HOPELESS == 0:
            return "Ich weiß es nicht."
        texts = ("the list of books is open", "the page of the book is open", "the button is pressed", "the page shows the result")
        return json.dumps({"subgoals": [{"number": number, "text": text} for number, text in enumerate(texts, 1)]})
    if form == "Criteria":
        return json.dumps({"criteria": [{"text": "The page shows the result.", "part": "outcome", "essential": True}]})
    if form == "Verdict":
        if chance % HOPELESS == 0:
            return '{"success": tr'
        good = chance % 2 == 0
        return json.dumps({"criterion_1": {"evidence": "it shows", "step": 1, "met": good}, "uncontrollable": "", "success": good})
    first = data["steps"][0]["step"]
    done = [{"subgoal": len(data["done"]) + 1, "step": first, "evidence": "the page"}] if chance % 2 else []
    return "Sure:\n```json\n" + json.dumps({"done": done}) + "\n```"


@contextlib.contextmanager
def teacher():
    """A chat model behind an API. Yields its address and the number of questions by form."""
    asked = Counter()

    def post(body):
        form = body["response_format"]["json_schema"]["name"]
        asked[form] += 1
        # A correction is a sentence; the question is the last message of the user that is JSON.
        questions = [one["content"] for one in body["messages"] if one["role"] == "user" and one["content"].startswith("{")]
        data, _ = json.JSONDecoder().raw_decode(questions[-1])
        message = {"message": {"role": "assistant", "content": reply(form, questions[-1], data)}, "finish_reason": "stop"}
        return 200, {"choices": [message], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}

    with serving_json(post, models=["teacher"]) as url:
        yield f"{url}/v1", asked


@pytest.mark.ring
@pytest.mark.timeout(1200)
def test_a_phase_on_a_site_of_one_s_own_is_labelled_by_a_chat_model(tmp_path):
    sizes = [
        f"values.{name}={value}" for name, value in {"demonstrations": 6, "updates": 2, "attempts": 1, "epochs": 1, "tests": 4}.items()
    ]
    with teacher() as (url, asked):
        values = [f"out={tmp_path / 'run'}", f"values.url={url}", *sizes]
        config = load(PhasesConfig, "examples/your_site/phases_by_models.yaml", values)
        stages = [stage for stage in config.stages if stage.name not in ("evaluate-sft", "report")]
        phases.main(dataclasses.replace(config, stages=small(stages, SMALL, keep_servers=True)))
    run = tmp_path / "run"
    assert set(asked) == {"Written", "Criteria", "Verdict", "Checked"}

    written = json.loads((run / "subgoals.json").read_text())
    explored, labelled = ShardReader(run / "exploration"), ShardReader(run / "labelled")
    left_out = json.loads((run / "labelled" / "left_out.json").read_text())["left_out"]
    # What the model could not answer is left out and counted, and is no failure.
    assert set(left_out.values()) <= {"it has no outcome", "it has no milestones"}
    assert sorted([*labelled.ids(), *left_out]) == sorted(explored.ids())
    for episode in labelled:
        assert episode.outcome and episode.outcome.source == "judge" and "teacher" in episode.outcome.detail
        assert len(episode.subgoals) == 4 and all(one.check == "by teacher" for one in episode.subgoals)
        assert episode.task.id in written["subgoals"] and episode.task.id not in written["left_out"]
    assert {episode.success for episode in labelled} == {True, False}
    usage = json.loads((run / "labelled" / "usage.json").read_text())
    assert sum(one["requests"] for one in usage.values()) == sum(asked[form] for form in ("Criteria", "Verdict", "Checked"))
    # The evaluations are by the rules of the tasks.
    assert {one.outcome.source for one in ShardReader(run / "evaluations" / "mira" / "labelled") if one.outcome} == {"rule"}
