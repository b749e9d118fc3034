"""Converts a SentencePiece model of Gemma's kind to tokenizer.json, the format of the `tokenizers` library.

Readers then need neither sentencepiece nor protobuf. The ids are those of SentencePiece:

- SentencePiece first splits user-defined pieces from the normalized text, the leftmost and longest first, and never merges
  them. They become added tokens with `normalized: true`, which are matched after spaces have become U+2581.
- SentencePiece orders merges by the score of the resulting piece. A tokenizer.json lists pairs by rank, so every way to split
  a piece in two becomes a pair, ordered by the score of the piece.
- Characters without a piece become bytes. Control pieces become special tokens.
"""

from collections.abc import Sequence
from typing import Any

from mira_jax.trajectories.sentencepiece_model import Kind, Piece, SentencePieceModel

SPACE = "\u2581"
"""Represents a space within pieces."""


def convert(model: SentencePieceModel) -> dict[str, Any]:
    """The content of tokenizer.json.

    Raises:
        ValueError: the model has a setting that Gemma's tokenizers do not have, so the ids would differ.
    """
    _require(model)
    vocabulary = {piece.text: token for token, piece in enumerate(model.pieces)}
    added = [_added(token, piece) for token, piece in enumerate(model.pieces) if piece.kind not in (Kind.NORMAL, Kind.BYTE)]
    of_kind = {kind: [piece.text for piece in model.pieces if piece.kind == kind] for kind in Kind}
    bos = {"<bos>": {"id": "<bos>", "ids": [vocabulary["<bos>"]], "tokens": ["<bos>"]}}
    start, first, second = ({kind: {"id": name, "type_id": number}} for kind, name, number in (
        ("SpecialToken", "<bos>", 0), ("Sequence", "A", 0), ("Sequence", "B", 1)
    ))  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first],
            "pair": [start, first, {"SpecialToken": {"id": "<bos>", "type_id": 1}}, second],
            "special_tokens": bos,
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": of_kind[Kind.UNKNOWN][0],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(model.pieces, of_kind[Kind.USER_DEFINED]),
        },
    }


def _require(model: SentencePieceModel) -> None:
    names = {piece.text for piece in model.pieces}
    found = {
        "it is not a byte-pair model": not model.byte_pairs,
        "it has no byte fallback": not model.byte_fallback,
        "it normalizes characters": bool(model.charsmap),
        "it puts a space before a text": model.add_dummy_prefix,
        "it removes spaces": model.remove_extra_whitespaces,
        "it keeps spaces as they are": not model.escape_whitespaces,
        "it puts spaces at the end of pieces": model.whitespace_as_suffix,
        "it has unused pieces": any(piece.kind == Kind.UNUSED for piece in model.pieces),
        "it has no <bos> piece": "<bos>" not in names,
        "it has two pieces of one name": len(names) < len(model.pieces),
    }
    reasons = [reason for reason, holds in found.items() if holds]
    if reasons:
        raise ValueError(f"{reasons[0]}, as no tokenizer of Gemma's does")


def _added(token: int, piece: Piece) -> dict[str, Any]:
    special = piece.kind != Kind.USER_DEFINED
    return {
        "id": token,
        "content": piece.text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": not special,
        "special": special,
    }


def _merges(pieces: Sequence[Piece], symbols: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair of normal pieces whose concatenation is a piece, best score first.

    A piece that contains a user-defined piece cannot result from merges, because the text is split there first.
    """
    normal = {piece.text for piece in pieces if piece.kind == Kind.NORMAL}
    merges = []
    for piece in sorted((piece for piece in pieces if piece.kind == Kind.NORMAL and len(piece.text) > 1), key=lambda piece: -piece.score):
        text = piece.text
        missing = next((character for character in text if character not in normal), None)
        if missing is not None:
            if any(symbol in text for symbol in symbols):
                continue
            raise ValueError(f"its piece {text!r} has the character {missing!r}, which is no piece, as no tokenizer of Gemma's has")
        merges += [(text[:cut], text[cut:]) for cut in range(1, len(text)) if text[:cut] in normal and text[cut:] in normal]
    return merges
