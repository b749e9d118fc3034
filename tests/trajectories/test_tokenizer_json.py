"""tokenizer.json against SentencePiece, the implementation that defines the ids."""

import json
import random

import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_jax.errors import UserError
from mira_jax.trajectories import sentencepiece_model, tokenizer_json
from mira_jax.trajectories.tokenizer import Tokenizer, train_tokenizer
from tests.kinds_of_tokenizers import KINDS, SYMBOLS, like_gemmas, plain
from tests.odd_texts import MARKS, odd_texts

TEXTS = odd_texts(10_000, seed=0)


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """SentencePiece's own processor, our reader of the same model, and our reader of the tokenizer.json made of it."""
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](folder / "tokenizer.model")
    ours = Tokenizer(folder)
    (folder / "json").mkdir()
    (folder / "json" / "tokenizer.json").write_text(json.dumps(ours.to_json()))
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")), ours, Tokenizer(folder / "json")


def test_ids_and_texts_are_sentencepieces_on_ten_thousand_odd_texts(pair):
    reference, ours, fast = pair
    assert fast.vocabulary_size == ours.vocabulary_size == reference.GetPieceSize()
    without_marks = [text for text in TEXTS if not any(mark in text for mark in (*MARKS, "<end_of_image>"))]
    assert len(without_marks) > 5_000
    for text in without_marks:
        ids = reference.EncodeAsIds(text)
        assert fast.encode(text) == ids, text
        assert fast.decode(ids) == reference.DecodeIds(ids) == text.replace("\u2581", " "), text
    for text in TEXTS:
        ids = ours.encode(text)
        assert fast.encode(text) == ids, text
        assert fast.decode(ids) == ours.decode(ids) == text.replace("\u2581", " "), "marks that are spelled out come back as they were"


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_has_sentencepieces_ids(pair, text):
    assert pair[2].encode(text) == pair[1].encode(text)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_ids_that_no_text_has_decode_as_sentencepiece_decodes_them(pair, data):
    reference, ours, fast = pair
    first = reference.PieceToId("<0x00>")
    some_bytes = st.integers(first, first + 255)
    plain = [token for token in range(reference.GetPieceSize()) if not reference.IsControl(token) and not reference.IsUnknown(token)]
    plain = [token for token in plain if reference.IdToPiece(token) not in (*MARKS, "<end_of_image>")]
    ids = data.draw(st.lists(st.one_of(some_bytes, st.sampled_from(plain)), max_size=12))
    assert fast.decode(ids) == ours.decode(ids) == reference.DecodeIds(ids)


def test_marks_come_from_ids_only(pair):
    _, ours, fast = pair
    for tokenizer in (ours, fast):
        special = [tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.start_of_turn_id, tokenizer.end_of_turn_id]
        assert not set(special) & set(tokenizer.encode("".join(MARKS)))
        assert tokenizer.decode([*special, *tokenizer.encode("a")]) == "a"
        assert tokenizer.decode_with_marks(special) == "<pad><eos><bos><start_of_turn><end_of_turn>"


def test_a_mark_that_is_no_piece_is_text(pair):
    _, ours, fast = pair
    if "<mask>" not in ours.to_json()["model"]["vocab"]:
        ids = fast.encode("<mask>")
        assert len(ids) > 1 and max(ids) < fast.vocabulary_size and fast.decode(ids) == "<mask>"


@pytest.mark.parametrize("seed", range(6))
def test_merges_agree_on_small_alphabets(seed, tmp_path):
    """Few characters make many ties and overlaps."""
    draw = random.Random(seed)
    alphabet = ("ab", "a", "ab ", "a \n", "ab<>", "ab12 ")[seed]
    texts = ["".join(draw.choices(alphabet, k=draw.randint(1, 60))) for _ in range(400)]
    symbols = sorted({"".join(draw.choices(alphabet, k=draw.randint(1, 4))) for _ in range(3)} - {"\n"})
    train_tokenizer(texts[:40], tmp_path / "tokenizer.model", 380, symbols)
    ours = Tokenizer(tmp_path)
    fast = tokenizers.Tokenizer.from_str(json.dumps(ours.to_json()))
    for text in texts:
        assert fast.encode(text, add_special_tokens=False).ids == ours.encode(text), text


def test_lone_surrogates_become_the_replacement_character(pair):
    for tokenizer in pair[1:]:
        assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")
        assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


def test_the_model_file_is_read_as_protobuf_reads_it(tmp_path):
    pb = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    like_gemmas(tmp_path / "tokenizer.model")
    data = (tmp_path / "tokenizer.model").read_bytes()
    theirs, ours = pb.ModelProto.FromString(data), sentencepiece_model.parse(data)
    assert [(piece.piece, piece.score, piece.type) for piece in theirs.pieces] == [
        (piece.text, piece.score, piece.kind) for piece in ours.pieces
    ]
    assert ours.byte_pairs and ours.byte_fallback and not ours.add_dummy_prefix and not ours.charsmap
    changed = pb.ModelProto.FromString(sentencepiece_model.with_controls(data, ["<end_of_turn>"]))
    different = [new for old, new in zip(theirs.pieces, changed.pieces, strict=True) if old != new]
    assert [(piece.piece, piece.type) for piece in different] == [("<end_of_turn>", sentencepiece_model.Kind.CONTROL)]
    assert (changed.trainer_spec, changed.normalizer_spec) == (theirs.trainer_spec, theirs.normalizer_spec)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": "unigram"}, "not a byte-pair model"),
        ({"byte_fallback": False}, "no byte fallback"),
        ({"add_dummy_prefix": True}, "a space before a text"),
        ({"remove_extra_whitespaces": True}, "removes spaces"),
        ({"normalization_rule_name": "nfkc"}, "normalizes characters"),
        ({"treat_whitespace_as_suffix": True}, "at the end of pieces"),
    ],
)
def test_models_of_another_kind_are_refused_by_reason(options, reason, tmp_path):
    settings = {
        "model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity", "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>",
        "eos_piece": "<eos>", "bos_piece": "<bos>", "control_symbols": ["<start_of_turn>", "<end_of_turn>"], **options,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["the cat sat on the mat", "blue lamps and red chairs"] * 20), model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=340, hard_vocab_limit=False, minloglevel=2, **settings,
    )  # fmt: skip
    with pytest.raises(UserError, match=reason):
        Tokenizer(tmp_path).to_json()


def write_json(folder, change):
    plain(folder / "tokenizer.model")
    content = Tokenizer(folder).to_json()
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return Tokenizer(folder)


def added(content, special=True, number=None):
    return {
        "id": number or len(content["model"]["vocab"]), "content": "<|im_end|>", "special": special, "normalized": False,
        "single_word": False, "lstrip": False, "rstrip": False,
    }  # fmt: skip


def test_tokenizer_json_wins_over_the_model_beside_it(tmp_path):
    """Its added tokens are ids; transformers and vLLM read this file too."""
    fast = write_json(tmp_path, lambda content: content["added_tokens"].append(added(content, special=False)))
    model = Tokenizer(tmp_path / "tokenizer.model")
    assert fast.path.name == "tokenizer.json" and fast.vocabulary_size == model.vocabulary_size + 1
    assert fast.encode("a<|im_end|>") == [*model.encode("a"), model.vocabulary_size]


def test_end_tokens_are_those_that_the_folder_states(tmp_path):
    fast = write_json(tmp_path, lambda content: content["added_tokens"].append(added(content)))
    end = fast.vocabulary_size - 1
    assert fast.end_ids == (1, 5)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": end}))
    assert Tokenizer(tmp_path).end_ids == (1, 5, end)
    assert json.loads(Tokenizer(tmp_path).contents()["generation_config.json"]) == {"eos_token_id": [1, 5, end]}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 106]}))
    assert Tokenizer(tmp_path).end_ids == (1, 5), "106 is a byte here: an export of a model without a tokenizer said so"
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": "1"}))
    with pytest.raises(UserError, match="eos_token_id is '1'"):
        Tokenizer(tmp_path)


def test_ids_beyond_the_embedding(tmp_path):
    """Special tokens there are left out, as <image_soft_token> of Gemma3 1B; what a text can give is refused."""
    fast = write_json(tmp_path, lambda content: content["added_tokens"].append(added(content)))
    rows = fast.vocabulary_size - 1
    fast.fit(rows, "model")
    assert fast.vocabulary_size == rows and max(fast.encode("<|im_end|>")) < rows
    with pytest.raises(UserError, match="has none; name the tokenizer of this model"):
        fast.fit(rows - 1, "model")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": rows}))
    with pytest.raises(UserError, match="im_end"):
        Tokenizer(tmp_path).fit(rows, "model")


def swallows_spaces(content):
    content["added_tokens"].append({**added(content), "lstrip": True})


def spells_a_mark(content):
    content["model"]["vocab"]["<|im_end"] = len(content["model"]["vocab"])
    content["added_tokens"].append({**added(content, number=len(content["model"]["vocab"])), "content": "ab"})
    content["model"]["vocab"]["ab"] = len(content["model"]["vocab"])
    content["model"]["merges"].insert(0, ("a", "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swallows_spaces, "depend on whether a text stands before"),
        (spells_a_mark, "make ab from plain text"),
        (lambda content: content.pop("model"), "not a tokenizer that the tokenizers library"),
        (lambda content: content["added_tokens"].clear() or content["model"]["vocab"].pop("<end_of_turn>"), "no <end_of_turn> piece"),
    ],
)
def test_files_that_can_not_be_trusted_are_refused_by_reason(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write_json(tmp_path, change)


def test_symbols_are_those_of_the_shop():
    yaml = pytest.importorskip("yaml")
    with open("configs/shop/sft.yaml") as file:
        assert set(SYMBOLS) <= set(yaml.safe_load(file)["tokenizer"]["train"]["symbols"])


def test_spaces_within_symbols_are_stored_as_sentencepiece_stores_them(pair):
    content = pair[1].to_json()
    assert content["normalizer"]["content"] == tokenizer_json.SPACE
    assert not any(" " in token["content"] for token in content["added_tokens"])


def test_a_run_and_its_export_have_one_hash(pair):
    _, ours, fast = pair
    assert ours.sha256 == fast.sha256
