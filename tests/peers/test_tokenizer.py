"""The tokenizer and the chat template of an export, read by transformers. Run by `make test-peers`, in its oldest and newest releases."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

transformers = pytest.importorskip("transformers")

from mira_jax.models.huggingface import tokenizer_files  # noqa: E402
from mira_jax.trajectories.chat import ChatError  # noqa: E402
from mira_jax.trajectories.prompts import PromptConfig, Round, prompt_ids  # noqa: E402
from mira_jax.trajectories.tokenizer import Tokenizer  # noqa: E402
from tests.conversations import CONVERSATIONS, REFUSED  # noqa: E402
from tests.kinds_of_tokenizers import KINDS  # noqa: E402
from tests.odd_texts import MARKS, odd_texts  # noqa: E402

TEXTS = odd_texts(10_000, seed=1)


def export(source, folder):
    """All of an export but the weights."""
    rows = Tokenizer(source).vocabulary_size
    plan = tokenizer_files.plan(source, SimpleNamespace(vocabulary_size=rows, max_positions=1024), None)
    folder.mkdir()
    for name, path in plan.copies.items():
        (folder / name).write_bytes(path.read_bytes())
    config = {"model_type": "gemma3_text", "vocab_size": rows, **plan.ids}
    for name, document in {**plan.documents, "config.json": config}.items():
        (folder / name).write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    """SentencePiece's reader, and the folder of its export."""
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](folder / "tokenizer.model")
    return Tokenizer(folder), export(folder, folder / "export")


@pytest.fixture(scope="module")
def pair(exported):
    return exported[0], transformers.AutoTokenizer.from_pretrained(exported[1])


def test_ids_and_texts_are_ours_on_ten_thousand_odd_texts(pair):
    ours, theirs = pair
    expected = [ours.encode(text) for text in TEXTS]
    assert theirs(TEXTS, add_special_tokens=False, split_special_tokens=True)["input_ids"] == expected
    plain = [index for index, text in enumerate(TEXTS) if not any(mark in text for mark in (*MARKS, "<end_of_image>"))]
    read = theirs([TEXTS[index] for index in plain], add_special_tokens=False, split_special_tokens=False)["input_ids"]
    assert len(plain) > 5_000 and read == [expected[index] for index in plain]
    assert theirs.batch_decode(expected) == [text.replace("\u2581", " ") for text in TEXTS]


def test_no_token_is_outside_the_embedding(pair):
    ours, theirs = pair
    assert len(theirs) == ours.vocabulary_size
    assert max(theirs("text with <mask> in it <|im_end|>")["input_ids"]) < ours.vocabulary_size
    assert set(theirs("a")) == {"input_ids", "attention_mask"}, "what generate takes"
    assert theirs("a")["input_ids"] == [ours.bos_id, *ours.encode("a")]
    named = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, theirs.unk_token_id)
    assert named == (ours.bos_id, ours.eos_id, ours.pad_id, 3)


@pytest.mark.parametrize("version", ["webrl", "compact"])
def test_a_rollouts_prompt_read_as_text_has_the_same_ids_but_for_seams(pair, version):
    """Our prompts are encoded piece by piece: their text gives the same ids where no merge runs over a seam."""
    ours, theirs = pair
    past = [Round('do(action="Click", element="blue lamp")'), Round("oops", error="no call found")]
    ids = prompt_ids("Buy it", past, '<a id="blue lamp">\n<a id="add to cart">', PromptConfig(version), ours)
    assert theirs.decode(ids) == ours.decode_with_marks(ids)
    assert theirs(theirs.decode(ids), add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize(("messages", "expected"), CONVERSATIONS)
def test_the_chat_template_is_gemmas(messages, expected, pair):
    ours, theirs = pair
    assert theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == expected
    assert theirs(expected, add_special_tokens=False)["input_ids"] == ours.encode_chat(messages) or "<start_of_image>" in expected


# transformers 5 reads a content of null as an empty text before the template sees it.
@pytest.mark.parametrize(("messages", "reason"), [case for case in REFUSED if case[0][-1]["content"] is not None])
def test_the_chat_template_refuses_what_gemmas_does(messages, reason, pair):
    ours, theirs = pair
    with pytest.raises(Exception, match=reason):
        theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    with pytest.raises(ChatError, match=reason):
        ours.encode_chat(messages)


def test_readers_need_neither_sentencepiece_nor_protobuf_nor_tiktoken(exported):
    code = """if True:
        import sys
        for name in ("sentencepiece", "google.protobuf", "tiktoken"):
            sys.modules[name] = None
        from transformers import AutoTokenizer
        print(AutoTokenizer.from_pretrained(sys.argv[1])("blue lamp", add_special_tokens=False)["input_ids"])
    """
    out = subprocess.run([sys.executable, "-c", code, str(exported[1])], capture_output=True, text=True, timeout=200)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == exported[0].encode("blue lamp")


def test_what_transformers_saves_is_read_and_exported_again(pair, tmp_path):
    """Newer releases write tokenizer.json and no tokenizer.model."""
    ours, theirs = pair
    theirs.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.model").unlink(missing_ok=True)
    saved = Tokenizer(tmp_path / "saved")
    assert saved.path.name == "tokenizer.json" and saved.end_ids == ours.end_ids and saved.sha256 == ours.sha256
    assert [saved.encode(text) for text in TEXTS[:2000]] == [ours.encode(text) for text in TEXTS[:2000]]
    again = export(tmp_path / "saved", tmp_path / "again")
    for name in ("config.json", "generation_config.json"):
        assert json.loads((again / name).read_text())["eos_token_id"] == [ours.eos_id, ours.end_of_turn_id]
    assert transformers.AutoTokenizer.from_pretrained(again).chat_template == theirs.chat_template


def test_added_tokens_and_a_template_of_its_own(pair, tmp_path):
    """A fine-tune in ChatML beside the tokenizer.model that it began with."""
    old, _ = pair
    theirs = transformers.AutoTokenizer.from_pretrained(pair[1].name_or_path)
    theirs.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    theirs.chat_template = (
        "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    theirs.save_pretrained(tmp_path / "chatml")
    (tmp_path / "chatml" / "tokenizer.model").write_bytes(old.path.read_bytes())
    end = theirs.convert_tokens_to_ids("<|im_end|>")
    (tmp_path / "chatml" / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, end]}))
    for folder in (tmp_path / "chatml", export(tmp_path / "chatml", tmp_path / "again")):
        ours = Tokenizer(folder)
        assert ours.vocabulary_size == old.vocabulary_size + 2 and end in ours.end_ids
        texts = ["<|im_start|>user", "a <|im_end|> b", *TEXTS[:500]]
        assert [ours.encode(text) for text in texts] == theirs(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        messages = [{"role": "user", "content": "blue lamp"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
        prompt = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert ours.encode_chat(messages) == theirs(prompt, add_special_tokens=False, split_special_tokens=False)["input_ids"]
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text())["eos_token_id"] == [*old.end_ids, end]
