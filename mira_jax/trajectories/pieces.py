"""A common interface for the two libraries that split text into pieces."""

import codecs
import functools
import itertools
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import tokenizers

from mira_jax.errors import UserError
from mira_jax.trajectories import sentencepiece_model
from mira_jax.trajectories.sentencepiece_model import Kind, SentencePieceModel

MARKS = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")
"""Special tokens of Gemma3 that its SentencePiece model lists as ordinary symbols."""

_BYTE_BY_BYTE = "mira_jax.byte_by_byte"
"""The error handler that replaces each byte of invalid UTF-8 by U+FFFD."""


def _replace_one_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd", error.start + 1


codecs.register_error(_BYTE_BY_BYTE, _replace_one_byte)


class Pieces(Protocol):
    """Converts between text and ids. Special tokens are only produced from ids: spelled out in a text, they are plain characters."""

    size: int
    """The highest id plus one."""
    special: dict[str, int]
    """The ids of the special tokens, by their text."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...
    def find(self, piece: str) -> int | None: ...
    def name(self, token: int) -> str: ...
    def is_symbol(self, token: int) -> bool:
        """Whether the piece was added explicitly, and not learned when the tokenizer was trained."""
        ...


class SentencePiecePieces:
    """A tokenizer.model, read with SentencePiece."""

    def __init__(self, path: Path):
        """Raises UserError if the file is not a SentencePiece model."""
        data = path.read_bytes()
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
            exposed = [mark for mark in (*MARKS, *self.names().values()) if not self._processor.IsControl(self._processor.PieceToId(mark))]
            exposed = [mark for mark in exposed if self.find(mark) is not None]
            if exposed:
                data = sentencepiece_model.with_controls(data, exposed)
                self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{path}: not a SentencePiece model: {error}") from None
        self._data, self.size = data, self._processor.GetPieceSize()
        reserved = (token for token in range(self.size) if self._processor.IsControl(token) or self._processor.IsUnknown(token))
        self.special = {self._processor.IdToPiece(token): token for token in reserved}

    def names(self) -> dict[str, str]:
        """The names of special tokens in the model."""
        ids = {"bos_token": self._processor.bos_id(), "eos_token": self._processor.eos_id(), "pad_token": self._processor.pad_id()}
        return {name: self._processor.IdToPiece(token) for name, token in ids.items() if token >= 0}

    @functools.cached_property
    def model(self) -> SentencePieceModel:
        """The complete model, with its marks as control pieces."""
        return sentencepiece_model.parse(self._data)

    def encode(self, text: str) -> list[int]:
        return self._processor.EncodeAsIds(text)

    def decode(self, ids: list[int]) -> str:
        return self._processor.DecodeIds(ids)

    def find(self, piece: str) -> int | None:
        token = self._processor.PieceToId(piece)
        return token if self._processor.IdToPiece(token) == piece else None

    def name(self, token: int) -> str:
        return self._processor.IdToPiece(token)

    def is_symbol(self, token: int) -> bool:
        return token < self.size and self.model.pieces[token].kind in (Kind.CONTROL, Kind.USER_DEFINED)


class FastPieces:
    """A tokenizer.json, read with the `tokenizers` library."""

    def __init__(self, path: Path):
        """Raises UserError if the file is not a tokenizer, or if its special tokens cannot be separated from text."""
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # The library raises no more specific exception.
            raise UserError(f"{path}: not a tokenizer that the tokenizers library {tokenizers.__version__} reads: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._added: dict[int, Any] = self._tokenizer.get_added_tokens_decoder()
        self.size = 1 + max(self._tokenizer.get_vocab().values(), default=-1)
        self.special = {token.content: number for number, token in self._added.items() if token.special}
        self._require_separable(path)

    def _require_separable(self, path: Path) -> None:
        """A prompt is encoded in pieces of text, with the ids of special tokens between them. The result must equal the encoding
        of the whole."""
        whole = [self._tokenizer.encode(f"a {mark} b", add_special_tokens=False).ids for mark in self.special]
        self._tokenizer.encode_special_tokens = True
        before, after = self.encode("a "), self.encode(" b")
        for (mark, number), ids in zip(self.special.items(), whole, strict=True):
            if ids != [*before, number, *after]:
                raise UserError(f"{path}: its ids depend on whether a text stands before or after {mark}; this is not supported")
            if not self.special.keys().isdisjoint(map(self.name, self.encode(mark))):
                raise UserError(f"{path}: its merges make {mark} from plain text, so that a page could end a turn")

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Decodes like SentencePiece. In invalid UTF-8, `tokenizers` would also drop valid characters between the invalid bytes."""
        text = self._tokenizer.decode(ids, skip_special_tokens=False)
        if "\ufffd" not in text:
            return text
        runs = itertools.groupby(ids, key=lambda token: token in self._bytes)
        return "".join(
            bytes(self._bytes[token] for token in run).decode("utf-8", _BYTE_BY_BYTE)
            if is_bytes
            else self._tokenizer.decode(list(run), skip_special_tokens=False)
            for is_bytes, run in runs
        )

    @functools.cached_property
    def _bytes(self) -> dict[int, int]:
        """The byte that each byte token represents."""
        found = {self.find(f"<0x{byte:02X}>"): byte for byte in range(256)}
        return {token: byte for token, byte in found.items() if token is not None}

    def find(self, piece: str) -> int | None:
        return self._tokenizer.token_to_id(piece)

    def name(self, token: int) -> str:
        return self._tokenizer.id_to_token(token) or f"<{token}>"

    def is_symbol(self, token: int) -> bool:
        return token in self._added
