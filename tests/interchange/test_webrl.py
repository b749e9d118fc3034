"""WebRL's files, in the form that its interaction code and scripts/process_data.py write."""

import json

import pytest

from mira_jax.convert import COMMAND
from mira_jax.errors import UserError
from mira_jax.interchange import sources, webrl
from mira_jax.trajectories.prompts import PromptConfig, prompt_ids, rounds
from mira_jax.trajectories.records import Action, Status
from mira_jax.trajectories.shards import ShardReader
from mira_jax.trajectories.tokenizer import Tokenizer
from tests.synthetic import write_tokenizer

INTENT = "List the orders of Jennifer White"
HTML = (
    '<html data-bbox="0,0,1280,720"> <span id="2" data-text="Sales"> Sales </span> </html>',
    '<html> <a id="4"> Orders </a> </html>',
    "<html> </html>",
)
RESPONSES = (
    '# Element: the "Sales" menu item on the left sidebar\ndo(action="Click", element="2")',
    'I open the orders. do(action="Click", element="4")',
    '# Note: none\nexit(message="none")',
)  # fmt: skip


def trace(intent: str = INTENT, htmls=HTML, responses=RESPONSES, trace_id: int | str = 7, **added) -> str:
    """A file of traces/, as run.py writes it."""
    lines = []
    for index, (html, response) in enumerate(zip(htmls, responses, strict=True)):
        prompt = intent if index == 0 else "** Simplified html **"
        line = {"trace_id": trace_id, "index": index, "prompt": prompt, "html": html, "response": response, "target": intent}
        lines.append(json.dumps({**line, **({"fixed_response": response, **added} if added else {})}))
    return "\n".join(lines) + "\n"


def rollouts(folder, **files):
    """A rollout folder: `traces_7` is traces/7.jsonl, `actions_7` the score in actions/7.json."""
    for name, content in files.items():
        kind, _, stem = name.rpartition("_")
        path = folder / kind / f"{stem}.{'json' if kind == 'actions' else 'jsonl'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            content if isinstance(content, str) else json.dumps({"task_id": stem, "score": content, "actions": ["do"]}, indent=4)
        )
    return folder


def items(score: float, htmls=HTML, responses=RESPONSES, intent: str = INTENT) -> list[dict]:
    """A trajectory of the training data, by `build_policy_data`, worked out from its format strings."""
    made = []
    user, assistant = "<|eot_id|><|start_header_id|>user<|end_header_id|>", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
    prompts = [intent, *["** Simplified html **"] * (len(htmls) - 1)]
    for index in range(len(htmls)):
        history = "".join(f"Round {i}\n\n{user}\n{prompts[i]}\n\n{assistant}\n{responses[i]}\n\n" for i in range(index))
        current = f"Round {index}\n\n{user}\n{htmls[index]}\n\n{assistant}\n"
        done = index == len(htmls) - 1
        made.append(
            {
                "observation": f"Task Instruction: {intent}\n\n{history}{current}", "next_observation": "...", "task": intent,
                "reward": score,
                "done": done, "action": responses[index], "trajectory_reward": int(score >= 0.5), "mc_return": 0.9,
            }
        )  # fmt: skip
    return made


def found(path, **options) -> list:
    settings, attempts = sources.Foreign(**options), sources.Attempts()
    return [one for file in webrl.files(path) for _, one in webrl.episodes(file, settings, attempts)]


def test_a_rollout_folder_is_read(tmp_path):
    (episode,) = found(rollouts(tmp_path, traces_7=trace(), actions_7=1.0), policy="llama", split="validation")
    assert (episode.task.id, episode.task.intent, episode.task.split, episode.task.horizon) == ("webrl.7", INTENT, "validation", 3)
    assert episode.policy.name == "llama" and episode.status is Status.FINISHED and episode.evidence.answer == "none"
    assert (episode.outcome.success, episode.outcome.score, episode.outcome.source) == (True, 1.0, "rule")
    assert [step.page.observation for step in episode.steps] == list(HTML)
    assert [step.response for step in episode.steps] == list(RESPONSES)
    # The second response is text before a call, which WebRL accepts.
    assert [step.action for step in episode.steps] == [
        Action(name="Click", element="2"), Action(name="Click", element="4"), Action(name="exit", argument="none"),
    ]  # fmt: skip
    assert [step.error for step in episode.steps] == [None] * 3


def test_fixed_traces_are_read_instead_with_their_score(tmp_path):
    folder = rollouts(tmp_path, traces_7=trace(), actions_7=0.0, fixed_traces_7=trace(score=1), fixed_traces_8=trace(trace_id=8, score=0.0))
    seven, eight = found(folder)
    assert (seven.outcome.score, seven.outcome.source) == (1.0, "orm")  # differs from the rule's 0 in actions/
    assert (eight.outcome.success, eight.outcome.source) == (False, "orm")


@pytest.mark.parametrize(("score", "success", "status"), [(0.5, True, "finished"), (0.49, False, "finished"), (-0.1, None, "infra_error")])
def test_scores_are_outcomes_by_the_threshold_of_webrl(tmp_path, score, success, status):
    (episode,) = found(rollouts(tmp_path, traces_7=trace(), actions_7=score))
    assert episode.status == status and (episode.outcome.success if episode.outcome else None) is success


def test_a_trace_without_a_score_has_no_outcome(tmp_path):
    (episode,) = found(rollouts(tmp_path, traces_7=trace()))
    assert episode.outcome is None and episode.status is Status.FINISHED


def test_an_early_stop_is_no_step(tmp_path):
    (episode,) = found(rollouts(tmp_path, traces_7=trace(responses=(*RESPONSES[:2], "")), actions_7=0.0))
    assert len(episode.steps) == 2 and episode.status is Status.HORIZON and episode.evidence.page.observation == HTML[2]


def test_training_data_is_read_from_its_prompts(tmp_path):
    (tmp_path / "data.json").write_text(
        json.dumps([items(1.0), items(0.0, HTML[:2], RESPONSES[:2]), items(1.0, HTML[:1], RESPONSES[2:], "other")])
    )
    first, second, third = found(tmp_path / "data.json")
    assert [step.page.observation for step in first.steps] == list(HTML) and first.outcome.success and first.status is Status.FINISHED
    assert second.status is Status.HORIZON and not second.outcome.success
    assert (first.task.id, first.attempt, second.attempt) == (second.task.id, 0, 1) and third.task.id != first.task.id


def test_its_prompts_are_ours(tmp_path):
    """Our prompt of a step is the text of WebRL's with Gemma's marks."""
    (episode,) = found(rollouts(tmp_path, traces_7=trace(), actions_7=1.0))
    tokenizer = Tokenizer(write_tokenizer(tmp_path / "tokenizer.model"))
    ids = prompt_ids(INTENT, rounds(episode.steps[:1]), HTML[1], PromptConfig(max_tokens=4000), tokenizer)
    text = tokenizer.decode(
        [token for token in ids if token not in (tokenizer.start_of_turn_id, tokenizer.end_of_turn_id, tokenizer.bos_id)]
    )
    assert text == (
        f"user\nTask Instruction: {INTENT}\nuser\nRound 0\n** Simplified html **\nmodel\n{RESPONSES[0]}\nuser\nRound 1\n{HTML[1]}\nmodel\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (trace().replace('"index": 1', '"index": 2'), ", line 2: index: 2, expected 1"),
        (
            trace().replace('"trace_id": 7, "index": 2', '"trace_id": 8, "index": 2'),
            ", line 3: trace_id: the line belongs to another trace, 8",
        ),
        (trace().replace('"html"', '"page"', 1), ", line 1: not valid: Object missing required field `html`"),
        (trace() + '{"trace_id"', ", line 4: not valid"),
        (trace(score=float("nan")), ", line 1: not valid"),
        (trace().replace(INTENT, "\\ud800"), ", line 1: not valid"),
        (trace(responses=("",) * 3, htmls=HTML).splitlines()[0], ": holds no step"),
        ("", ": holds no step"),
    ],
)
def test_a_damaged_trace_is_refused_by_file_and_field(tmp_path, text, message):
    (refused,) = found(rollouts(tmp_path, traces_7=text, actions_7=1.0))
    assert isinstance(refused, UserError) and str(refused).startswith(f"{tmp_path / 'traces' / '7.jsonl'}{message}")


def changed(place: int, **fields) -> list[dict]:
    made = items(1.0)
    made[place] |= fields
    return made


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        (changed(1, action="another"), "[0][2].observation: not WebRL's prompt of round 2"),
        (changed(1, task="another"), "[0][1]: task and trajectory_reward differ"),
        (changed(1, done=True), "[0][1].done: true, but the list has 3 items"),
        (items(1.0)[1:], "[0][0].observation: not WebRL's prompt of round 0"),
        ([], "[0]: holds no step"),
    ],
)
def test_odd_training_data_is_refused_by_file_and_field(tmp_path, trajectory, message):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([trajectory]))
    (refused,) = found(path)
    assert isinstance(refused, UserError) and str(refused).startswith(f"{path}: {message}")


def test_pickles_and_flat_lists_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "data.pt").write_bytes(b"\x80")
    with pytest.raises(UserError, match=r"data\.pt: a pickle can run any code .* json\.dump\(torch\.load"):
        found(tmp_path / "data.pt")
    (tmp_path / "flat.json").write_text(json.dumps(items(1.0)))
    (refused,) = found(tmp_path / "flat.json")
    assert "flat.json: [0]: Expected `array`, got `object`" in str(refused)


def test_the_same_trajectory_twice_counts_once(tmp_path, capsys):
    (tmp_path / "data.json").write_text(json.dumps([items(1.0), items(1.0)]))
    command = [str(tmp_path / "data.json"), "--read", "webrl", "--out", str(tmp_path / "out")]
    assert COMMAND.run(command) == 2
    assert "data.json: [1]: the same episode as" in capsys.readouterr().err
    assert COMMAND.run([*command, "--skip"]) == 0
    assert "1 episodes, 1 skipped" in capsys.readouterr().out and len(ShardReader(tmp_path / "out")) == 1
