"""The prompt of an outcome reward model, spelled out."""

import msgspec
import pytest

from mira_jax.errors import UserError
from mira_jax.trajectories.answer_prompts import QUESTION, answer_ids, last_page, outcome_prompt_ids
from mira_jax.trajectories.prompts import HISTORY_CUT, PAGE_CUT, PromptConfig
from mira_jax.trajectories.records import Evidence, Page
from mira_jax.trajectories.tokenizer import Tokenizer
from tests import synthetic

END = Page(url="__SHOP__/end", observation='<a id="thank you">')


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(synthetic.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"))


def episode(steps=2, **changes):
    return msgspec.structs.replace(synthetic.trajectory(0, steps, success=True), evidence=Evidence(page=END), **changes)


def shown(trajectory, tokenizer, **config):
    return tokenizer.decode_with_marks(outcome_prompt_ids(trajectory, PromptConfig(**config), tokenizer))


def test_the_webrl_form_is_one_turn_with_question_history_and_page(tokenizer):
    trajectory = episode()
    first, second = trajectory.steps
    noted = msgspec.structs.replace(first, response=f"# Note: look\n\n{first.response}", error="no such element")
    trajectory = msgspec.structs.replace(trajectory, steps=(noted, second))
    assert shown(trajectory, tokenizer) == (
        f"<bos><start_of_turn>user\n{QUESTION}Task Instruction: {trajectory.task.intent}\nAction History:\n"
        f"0. # Note: look; {first.response}\n"
        "Error: no such element\n"
        f"1. {second.response}\n"
        'Last Page:\n<a id="thank you"><end_of_turn>\n<start_of_turn>model\n'
    )


def test_the_compact_form_is_the_content_with_few_marks(tokenizer):
    trajectory = episode()
    responses = "".join(f"{step.response}\n" for step in trajectory.steps)
    assert shown(trajectory, tokenizer, version="compact") == (
        f'<bos>{trajectory.task.intent}\n{responses}<start_of_turn><a id="thank you"><end_of_turn>'
    )


def test_the_last_page_is_the_evidence_or_that_of_the_last_step():
    assert last_page(episode()) is END
    without = msgspec.structs.replace(episode(), evidence=Evidence())
    assert last_page(without) == without.steps[-1].page
    with pytest.raises(ValueError, match="no page"):
        last_page(msgspec.structs.replace(without, steps=()))


@pytest.mark.parametrize("version", ["webrl", "compact"])
def test_old_responses_go_first_then_the_page_is_cut(tokenizer, version):
    trajectory = episode(8)
    trajectory = msgspec.structs.replace(trajectory, evidence=Evidence(page=Page(url="", observation=END.observation * 8)))
    whole = len(outcome_prompt_ids(trajectory, PromptConfig(version), tokenizer))
    shorter = outcome_prompt_ids(trajectory, PromptConfig(version, whole - 1), tokenizer)
    text = tokenizer.decode_with_marks(shorter)
    assert len(shorter) < whole and HISTORY_CUT in text and PAGE_CUT not in text
    assert trajectory.steps[0].response not in text and trajectory.steps[7].response in text
    longer = msgspec.structs.replace(trajectory, evidence=Evidence(page=Page(url="", observation=END.observation * 100)))
    cut = outcome_prompt_ids(longer, PromptConfig(version, whole), tokenizer)
    assert len(cut) == whole and PAGE_CUT in tokenizer.decode_with_marks(cut)
    with pytest.raises(UserError, match=r"prompt\.max_tokens: 20 leaves no room for a page"):
        outcome_prompt_ids(trajectory, PromptConfig(version, 20), tokenizer)


def test_the_answers_begin_with_different_tokens(tokenizer):
    yes, no = answer_ids(tokenizer)
    assert yes != no and "YES".startswith(tokenizer.decode([yes])) and "NO".startswith(tokenizer.decode([no]))
