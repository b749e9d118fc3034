"""SentencePiece with Gemma's marks, the same for prompts, training and serving. Needs no JAX."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from mira_jax.errors import UserError

START_OF_TURN = "<start_of_turn>"
END_OF_TURN = "<end_of_turn>"
FILE_NAME = "tokenizer.model"


class Tokenizer:
    """Text to token ids and back.

    Gemma's ids: pad 0, eos 1, bos 2, unk 3. A response ends with `end_of_turn`.
    """

    def __init__(self, path: str | Path):
        """`path`: a SentencePiece model, or a folder that holds `tokenizer.model`. Raises UserError if there is none."""
        path = Path(path)
        if path.is_dir():
            path = path / FILE_NAME
        if not path.is_file():
            raise UserError(f"{path}: no tokenizer; name a SentencePiece model, or the folder of a run, which holds one")
        self.path = path
        self._model = sentencepiece.SentencePieceProcessor()
        data = path.read_bytes()
        self.sha256 = hashlib.sha256(data).hexdigest()
        """Of the file."""
        try:
            self._model.LoadFromSerializedProto(data)
        except RuntimeError as error:
            raise UserError(f"{path}: not a SentencePiece model: {error}") from None
        self.pad_id, self.eos_id, self.bos_id = self._model.pad_id(), self._model.eos_id(), self._model.bos_id()
        self.start_of_turn_id = self._piece(START_OF_TURN)
        self.end_of_turn_id = self._piece(END_OF_TURN)
        self._control_ids = {self.pad_id, self.eos_id, self.bos_id, self.start_of_turn_id, self.end_of_turn_id}

    def _piece(self, piece: str) -> int:
        token = self._model.PieceToId(piece)
        if token == self._model.unk_id():
            raise UserError(f"{self.path}: the tokenizer has no {piece} piece, which every Gemma tokenizer has")
        return token

    @property
    def vocabulary_size(self) -> int:
        return self._model.GetPieceSize()

    def encode(self, text: str) -> list[int]:
        """Plain text to ids, without bos or eos.

        Turn marks inside `text` become plain characters: a page that spells out `<end_of_turn>` can't end a turn.
        """
        return [token for token in self._model.EncodeAsIds(_disarm(text)) if token not in self._control_ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, marks left out."""
        return self._model.DecodeIds([int(token) for token in ids if int(token) not in self._control_ids])

    def decode_with_marks(self, ids: Iterable[int]) -> str:
        """Ids to text with turn marks spelled out, to be read by people."""
        runs = itertools.groupby((int(token) for token in ids), key=lambda token: token in self._control_ids)
        return "".join("".join(map(self._model.IdToPiece, run)) if marks else self._model.DecodeIds(list(run)) for marks, run in runs)

    def piece(self, token: int) -> str:
        """A token's own name, which no other has: its text, a mark, or a byte such as `<0xE2>`."""
        return self._model.IdToPiece(int(token)).replace("\u2581", " ")


def _disarm(text: str) -> str:
    for mark in (START_OF_TURN, END_OF_TURN, "<bos>", "<eos>", "<pad>"):
        text = text.replace(mark, mark.replace("_", "-").replace("<", "< "))
    return text


def train_tokenizer(texts: Iterable[str], path: str | Path, vocabulary_size: int, symbols: Sequence[str] = ()) -> None:
    """Trains a byte-pair tokenizer with Gemma's special ids and writes it to `path`.

    Args:
        texts: the corpus.
        vocabulary_size: an upper bound; fewer pieces if the corpus has not that many.
        symbols: strings that are always one piece, for example the fixed parts of the action grammar.

    Raises:
        UserError: the vocabulary is too small for the bytes, marks and symbols that it must have.
    """
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(texts),
            model_prefix=str(Path(path).with_suffix("")),
            model_type="bpe",
            vocab_size=vocabulary_size,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            pad_piece="<pad>",
            eos_piece="<eos>",
            bos_piece="<bos>",
            control_symbols=[START_OF_TURN, END_OF_TURN],
            user_defined_symbols=["\n", *(symbol.replace(" ", "\u2581") for symbol in symbols)],
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            character_coverage=1.0,
            split_digits=True,
            max_sentence_length=100_000,
            num_threads=2,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"tokenizer.train: SentencePiece could not make {vocabulary_size} pieces of these texts: {error}") from None
