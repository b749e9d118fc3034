"""The run whose folder names the tokenizer of a model that answers YES or NO."""

import pytest

from mira_jax.errors import UserError
from mira_jax.trajectories.prompts import PromptConfig
from rollouts.labels.answers import refuse_other_run

PROMPT = PromptConfig(version="compact", max_tokens=250)
SAME = "{version: compact, max_tokens: 250}"


def run(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    refuse_other_run(str(tmp_path), PROMPT, "judge", "orm")


def test_a_run_of_the_recipe_with_the_same_prompts_is_taken(tmp_path):
    refuse_other_run(str(tmp_path), PROMPT, "judge", "orm")  # an export has no config.yaml
    run(tmp_path, f"recipe: {{name: orm, folds: 2}}\ndata: {{prompt: {SAME}, rows: 4}}\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            f"recipe: {{name: sft}}\ndata: {{prompt: {SAME}}}",
            r"judge\.tokenizer: .* is a run of the recipe sft; name one of the recipe orm",
        ),
        ("recipe: {name: orm}\ndata: {prompt: {version: compact, max_tokens: 480}}", r'judge\.prompt: .* set this to .*"max_tokens": 480'),
        ("recipe: {name: orm}", r"judge\.prompt: .* learned from other prompts"),
        ("recipe: orm\ndata: 3", "is a run of the recipe None"),
        ("recipe: {name: orm}\ndata: {prompt: {version: other}}", r"data\.prompt\.version"),
        ("recipe: [", "not valid YAML"),
    ],
)
def test_another_run_is_refused(content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(tmp_path, content)
