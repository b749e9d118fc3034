"""Chat templates. The expected prompts are what Gemma3's published template says, worked out by hand."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.trajectories.chat import GEMMA, ChatError, ChatTemplate
from mira_jax.trajectories.tokenizer import Tokenizer
from tests.conversations import CONVERSATIONS, REFUSED, published
from tests.kinds_of_tokenizers import KINDS
from tests.odd_texts import MARKS


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.model"
    KINDS[request.param](path)
    return Tokenizer(path)


@pytest.mark.parametrize(("messages", "expected"), CONVERSATIONS)
def test_a_conversation_spelled_out(messages, expected, tokenizer):
    assert ChatTemplate(GEMMA, {"bos_token": "<bos>"}).render(messages) == expected
    assert tokenizer.decode_with_marks(tokenizer.encode_chat(messages)) == expected


@pytest.mark.parametrize(("messages", "reason"), REFUSED)
def test_what_gemmas_template_refuses_is_refused(messages, reason):
    with pytest.raises(ChatError, match=reason):
        ChatTemplate(GEMMA, {"bos_token": "<bos>"}).render(messages)


TEXT = st.text(st.sampled_from("ab \n\t<>é\u2581"), max_size=12)
CONTENT = st.one_of(TEXT, st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXT), min_size=1, max_size=3))


@settings(max_examples=300, deadline=None)
@given(system=st.none() | CONTENT, turns=st.lists(CONTENT, min_size=1, max_size=5))
def test_every_shape_of_conversation(system, turns):
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [{"role": ("user", "assistant")[index % 2], "content": content} for index, content in enumerate(turns)]
    assert ChatTemplate(GEMMA, {"bos_token": "<bos>"}).render(messages) == published(messages)


@pytest.mark.parametrize("mark", [*MARKS, "<end_of_image>"])
def test_marks_in_messages_are_text(mark, tokenizer):
    def prompt(text):
        return tokenizer.encode_chat([{"role": "system", "content": text}, {"role": "user", "content": text}])

    special = {tokenizer.bos_id, tokenizer.start_of_turn_id, tokenizer.end_of_turn_id}
    plain = [token for token in prompt("a") if token in special]
    ids = prompt(f"{mark} x{mark}{mark}")
    assert [token for token in ids if token in special] == plain
    assert tokenizer.decode(ids) == "user\n" + f"{mark} x{mark}{mark}\n\n" + f"{mark} x{mark}{mark}\n" + "model\n"


def test_parts_can_not_spell_a_mark_together(tokenizer):
    parts = [{"type": "text", "text": "<end_of_"}, {"type": "text", "text": "turn>"}]
    ids = tokenizer.encode_chat([{"role": "user", "content": parts}])
    assert ids.count(tokenizer.end_of_turn_id) == 1 and "<end_of_turn>" in tokenizer.decode(ids)


CHATML = "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "chat_template.json", "named"])
def test_a_folders_own_template_is_used(place, tmp_path):
    KINDS["plain"](tmp_path / "tokenizer.model")
    content = Tokenizer(tmp_path).to_json()
    first = len(content["model"]["vocab"])
    flags = {"special": True, "normalized": False, "single_word": False, "lstrip": False, "rstrip": False}
    content["added_tokens"] += [{"id": first, "content": "<|im_start|>", **flags}, {"id": first + 1, "content": "<|im_end|>", **flags}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    if place == "chat_template.jinja":
        (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "not this one"}')
        (tmp_path / place).write_text(CHATML)
    elif place == "named":
        templates = [{"name": "tool_use", "template": "not this one"}, {"name": "default", "template": CHATML}]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    else:
        (tmp_path / place).write_text(json.dumps({"chat_template": CHATML}))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.chat_template == CHATML
    ids = tokenizer.encode_chat([{"role": "user", "content": "a <|im_end|>"}])
    # Jinja drops the newline that ends a template.
    assert ids == [
        first, *tokenizer.encode("user\na <|im_end|>"), first + 1, *tokenizer.encode("\n"), first, *tokenizer.encode("assistant"),
    ]  # fmt: skip
    assert ids.count(first + 1) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for %}", "can't be read"),
        ("{% generation %}{% endgeneration %}", "unknown tag 'generation'"),
        ("{{ messages[0].missing.again }}", "does not take these messages"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ raise_exception('only one turn') }}", "only one turn"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_templates_that_can_not_be_rendered_say_why(source, reason, tmp_path):
    KINDS["plain"](tmp_path / "tokenizer.model")
    (tmp_path / "chat_template.jinja").write_text(source)
    with pytest.raises(ChatError, match=reason):
        Tokenizer(tmp_path).encode_chat([{"role": "user", "content": "a"}])
