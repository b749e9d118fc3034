"""Converts between text and token ids, for prompts, training and serving. Does not need JAX."""

import functools
import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from mira_jax.errors import UserError
from mira_jax.model_files import locate, read_json
from mira_jax.trajectories import chat, tokenizer_json
from mira_jax.trajectories.pieces import FastPieces, Pieces, SentencePiecePieces

START_OF_TURN = "<start_of_turn>"
END_OF_TURN = "<end_of_turn>"
FILE_NAME = "tokenizer.model"
FAST = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"
OLD_TEMPLATE = "chat_template.json"
TOKENS = "special_tokens_map.json"
FILES = (SETTINGS, TOKENS, "added_tokens.json", TEMPLATE, OLD_TEMPLATE, GENERATION, FAST, FILE_NAME)
"""All files of a folder that affect its tokenizer, chat template and end tokens, in the order in which to write them. A partly
written folder then has no tokenizer, rather than a different one."""
NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}

log = logging.getLogger(__name__)


class Tokenizer:
    """Converts between text and token ids.

    If a folder contains a tokenizer.json, that file is the tokenizer. It is read with the `tokenizers` library, as in
    transformers, vLLM and SGLang, and a tokenizer.model is ignored. In other folders, tokenizer.model is read with
    SentencePiece.

    Special tokens (bos, turn marks and others) are only produced from ids. Spelled out in a text they are plain characters,
    so a page cannot end a turn: `encode` gives the same result as transformers with `split_special_tokens=True`.
    """

    def __init__(self, path: str | Path):
        """`path`: a folder, a SentencePiece model, or a tokenizer.json.

        Raises:
            UserError: there is no tokenizer, it cannot be read, or it is not of Gemma's kind.
        """
        path = Path(path)
        self.files: dict[str, Path] = {}
        """The files of this tokenizer, by their name in a folder."""
        if path.is_dir():
            self.files = {name: found for name in FILES if (found := locate(path / name))}
        elif path.is_file():
            self.files = {FAST if path.suffix == ".json" else FILE_NAME: path}
        found = next((name for name in (FAST, FILE_NAME) if name in self.files), None)
        if not found:
            raise UserError(f"{path}: no tokenizer; name a {FAST} or a SentencePiece model, or a folder that holds {FAST} or {FILE_NAME}")
        self.path = self.files[found]
        self._pieces: Pieces = FastPieces(self.path) if found == FAST else SentencePiecePieces(self.path)
        settings = {**self._read(TOKENS), **self._read(SETTINGS)}
        self.names = {**NAMES, **(self._pieces.names() if isinstance(self._pieces, SentencePiecePieces) else {}), **_names(settings)}
        """Texts of special tokens, by their names in configs and templates, such as eos_token."""
        self.pad_id, self.eos_id, self.bos_id = (self._piece(self.names[name]) for name in ("pad_token", "eos_token", "bos_token"))
        self.start_of_turn_id, self.end_of_turn_id = self._piece(START_OF_TURN), self._piece(END_OF_TURN)
        self._special = frozenset((*self._pieces.special.values(), self.pad_id, self.eos_id, self.bos_id))
        self.vocabulary_size = self._pieces.size
        """The highest id plus one."""
        self.chat_template = self._find_template(settings)
        """The template of the folder. None if it has none; Gemma's template is then used."""
        self.end_ids = self._find_end_ids(path / "config.json")
        """Tokens that end a response: eos, end of turn, and the end tokens in the folder's configs."""

    def _piece(self, piece: str) -> int:
        token = self._pieces.find(piece)
        if token is None:
            raise UserError(f"{self.path}: the tokenizer has no {piece} piece, which every Gemma tokenizer has")
        return token

    def _read(self, name: str) -> dict[str, Any]:
        return read_json(self.files[name]) if name in self.files else {}

    def _find_template(self, settings: Mapping[str, Any]) -> str | None:
        """Uses the order of transformers: chat_template.jinja, tokenizer_config.json, and the file of old processors."""
        if TEMPLATE in self.files:
            return self.files[TEMPLATE].read_text(encoding="utf-8")
        template = settings.get("chat_template") or self._read(OLD_TEMPLATE).get("chat_template")
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default")
        if template is not None and not isinstance(template, str):
            raise UserError(f"{self.path.parent}: chat_template is neither a text nor a list with one that is named default")
        return template

    def _find_end_ids(self, config: Path) -> tuple[int, ...]:
        ends = [self.eos_id, self.end_of_turn_id]
        stated = self._read(GENERATION).get("eos_token_id")
        if stated is None and locate(config):
            document = read_json(config)
            stated = document.get("eos_token_id", (document.get("text_config") or {}).get("eos_token_id"))
        for token in stated if isinstance(stated, list) else [] if stated is None else [stated]:
            if type(token) is not int:
                raise UserError(f"{self.path.parent}: eos_token_id is {stated!r}; expected an id, or a list of ids")
            if token in ends:
                continue
            if self._pieces.is_symbol(token):
                ends.append(token)
            else:
                log.warning("%s: eos_token_id has %d, which is ignored: it is not a special token", self.path.parent, token)
        return tuple(ends)

    def fit(self, rows: int, model: str | Path) -> None:
        """Removes special tokens without a row in the model's embedding, such as <image_soft_token> of Gemma3 1B.

        Raises:
            UserError: an id without a row may occur in a text, as a turn mark or as an end token.
        """
        needed = {self.bos_id, self.start_of_turn_id, *self.end_ids}
        for token in range(rows, self._pieces.size):
            if token not in self._special or token in needed:
                raise UserError(
                    f"{model}: the tokenizer {self.path} has {self._pieces.size} pieces, the model {rows} words, so that "
                    f"{self.piece(token)!r} (token {token}) has none; name the tokenizer of this model"
                )
        self.vocabulary_size = min(rows, self._pieces.size)

    def contents(self) -> dict[str, bytes]:
        """The files to store with a model that uses this tokenizer."""
        contents = {name: path.read_bytes() for name, path in self.files.items()}
        if GENERATION not in contents and self.end_ids != (self.eos_id, self.end_of_turn_id):
            contents[GENERATION] = json.dumps({"eos_token_id": self.end_ids}).encode()
        return contents

    def to_json(self) -> dict[str, Any]:
        """The content of a tokenizer.json with the same ids. Raises UserError if this is not possible."""
        if not isinstance(self._pieces, SentencePiecePieces):
            return read_json(self.path)
        try:
            return tokenizer_json.convert(self._pieces.model)
        except ValueError as error:
            raise UserError(f"{self.path}: no {FAST} can be made of this tokenizer: {error}") from None

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the tokenizer in the form of tokenizer.json, so that a run's tokenizer.model and its export's
        tokenizer.json have the same hash.

        If this form does not exist, the hash of the file.
        """
        try:
            content = json.dumps(self.to_json(), sort_keys=True).encode()
        except UserError:
            content = self.path.read_bytes()
        return hashlib.sha256(content).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Plain text to ids, without bos or eos. An unpaired surrogate, which UTF-8 cannot encode, becomes U+FFFD."""
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._pieces.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, without special tokens."""
        return self._pieces.decode([int(token) for token in ids if int(token) not in self._special])

    def decode_with_marks(self, ids: Iterable[int]) -> str:
        """Ids to text with special tokens spelled out, for people to read."""
        runs = itertools.groupby((int(token) for token in ids), key=lambda token: token in self._special)
        return "".join("".join(map(self._pieces.name, run)) if marks else self._pieces.decode(list(run)) for marks, run in runs)

    def piece(self, token: int) -> str:
        """The unique name of a token: its text, a mark, or a byte such as `<0xE2>`."""
        return self._pieces.name(int(token)).replace(tokenizer_json.SPACE, " ")

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The prompt for the next turn, with the folder's chat template or Gemma's.

        Equal to transformers' `apply_chat_template(messages, add_generation_prompt=True)`, except that special tokens spelled
        out in messages are plain characters.

        Args:
            messages: `role`, `content`, and other keys that the template reads.

        Raises:
            mira_jax.trajectories.chat.ChatError: the template refuses the messages, or cannot be read.
        """
        marks = {mark: token for mark, token in self._pieces.special.items() if token < self.vocabulary_size}
        segments = self._template.segments(messages, list(marks))
        return [token for is_mark, text in segments for token in ([marks[text]] if is_mark else self.encode(text))]

    @functools.cached_property
    def _template(self) -> chat.ChatTemplate:
        return chat.ChatTemplate(self.chat_template or chat.GEMMA, self.names)


def find_tokenizer(folders: Iterable[str | Path]) -> Path | None:
    """The first folder that contains a tokenizer. Raises UserError if one of its files may not be opened: see `locate`."""
    for folder in map(Path, folders):
        if {FAST, FILE_NAME}.intersection([name for name in FILES if locate(folder / name)]):
            return folder
    return None


def _names(settings: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the named special tokens, which are stored as strings or as serialised `AddedToken`."""
    found = {}
    for name, value in settings.items():
        if name.endswith("_token"):
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found[name] = text
    return found


def train_tokenizer(texts: Iterable[str], path: str | Path, vocabulary_size: int, symbols: Sequence[str] = ()) -> None:
    """Trains a byte-pair tokenizer with Gemma's special ids and writes it to `path`.

    Args:
        texts: the corpus.
        vocabulary_size: an upper bound. A small corpus gives fewer pieces.
        symbols: strings that are always a single piece, for example the fixed parts of the action grammar.

    Raises:
        UserError: the vocabulary is too small for the required bytes, marks and symbols.
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
