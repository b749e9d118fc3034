"""lm-evaluation-harness against the server, on a task of its own that needs no network."""

import json

import numpy as np
import pytest

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed here; `make test-peers` runs this")

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
target_delimiter: ""
"""
CHOICES = """
doc_to_choice: "{{choices}}"
doc_to_target: "{{right}}"
metric_list: [{metric: acc}]
"""
WORDS = """
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false, temperature: 0.0}
metric_list: [{metric: exact_match}]
"""
QUESTIONS = ("do(action=", "exit(message=", 'element="blue', "red cup", 'do(action="Type", argument=')
OPTIONS = (" cup", " lamp")


@pytest.fixture(scope="module")
def results(server, folder, tokenizer, by_hand, tmp_path_factory):
    """Runs both kinds of task; what the bare model gets right is the answer to every question but the last."""
    from lm_eval.tasks import TaskManager

    tasks = tmp_path_factory.mktemp("tasks")
    end_ids = tokenizer.eos_id, tokenizer.end_of_turn_id
    rows = []
    for number, question in enumerate(QUESTIONS):
        ids = [tokenizer.bos_id, *tokenizer.encode(question)]
        wholes = [[tokenizer.bos_id, *tokenizer.encode(question + option)] for option in OPTIONS]
        best = int(np.argmax([log_prob(by_hand, whole, len(ids)) for whole in wholes]))
        said = tokenizer.decode(by_hand.greedy(ids, 8, end_ids)).split("\n")[0]
        last = number == len(QUESTIONS) - 1
        rows.append({"question": question, "choices": OPTIONS, "right": 1 - best if last else best, "answer": said + "no" * last})
    data = tasks / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind, rest in (("chosen", "multiple_choice", CHOICES), ("written", "generate_until", WORDS)):
        (tasks / f"{name}.yaml").write_text(TASK.format(name=name, kind=kind, data=data) + rest)
    about = {"model": "tiny", "base_url": f"{server.url}/v1/completions", "tokenizer": str(folder), "add_bos_token": True}
    return lm_eval.simple_evaluate(
        model="local-completions", model_args={**about, "num_concurrent": 4, "max_retries": 2}, tasks=["chosen", "written"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False), bootstrap_iters=0,
    )["results"]  # fmt: skip


def log_prob(by_hand, ids: list[int], start: int) -> float:
    """Of the tokens from `start` on, each given those before it; nats."""
    whole = by_hand.log_probs(ids)
    return float(sum(whole[place - 1, ids[place]] for place in range(start, len(ids))))


def test_the_choices_that_it_scores_are_those_of_the_bare_model(results):
    assert results["chosen"]["acc,none"] == 4 / 5


def test_what_it_has_written_is_what_the_bare_model_writes(results):
    assert results["written"]["exact_match,none"] == 4 / 5
