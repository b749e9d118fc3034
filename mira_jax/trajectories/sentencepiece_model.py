"""SentencePiece's model file: its pieces and settings, read from protobuf's wire format.

The fields are those of sentencepiece_model.proto (https://github.com/google/sentencepiece). The generated Python module is
not used, because it registers the same message name as transformers, and a process can register a name only once.
"""

import dataclasses
import enum
import struct
from collections.abc import Collection, Iterator


class Kind(enum.IntEnum):
    """ModelProto.SentencePiece.Type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclasses.dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: Kind


@dataclasses.dataclass(frozen=True)
class SentencePieceModel:
    """The fields that determine the ids of a text. Defaults are those of the proto."""

    pieces: list[Piece]
    byte_pairs: bool
    """Whether trainer_spec.model_type is BPE."""
    byte_fallback: bool
    whitespace_as_suffix: bool
    charsmap: bytes
    """normalizer_spec.precompiled_charsmap. Empty for the identity."""
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool


def parse(model: bytes) -> SentencePieceModel:
    """Parses a serialized ModelProto. Raises ValueError if the data is not one."""
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for number, value in _fields(model):
            if number == 1:
                piece = _message(value)
                score = struct.unpack("<f", _raw(piece[2]))[0] if 2 in piece else 0.0
                pieces.append(Piece(_raw(piece[1]).decode(), score, Kind(piece.get(3, Kind.NORMAL))))
            elif number == 2:
                trainer |= _message(value)
            elif number == 3:
                normalizer |= _message(value)
    except (IndexError, KeyError, struct.error) as error:
        raise ValueError(f"not a SentencePiece model: {error!r}") from None
    return SentencePieceModel(
        pieces=pieces,
        byte_pairs=trainer.get(3, 1) == 2,
        byte_fallback=bool(trainer.get(35, 0)),
        whitespace_as_suffix=bool(trainer.get(24, 0)),
        charsmap=_raw(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
    )


def with_controls(model: bytes, marks: Collection[str]) -> bytes:
    """The same model with the pieces `marks` as control symbols, which SentencePiece never finds in a text."""
    parts, names = [], {mark.encode() for mark in marks}
    for number, value in _fields(model):
        content = _raw(value)
        if number == 1 and _message(value).get(1) in names:
            # In protobuf, the last value of a scalar field takes precedence, so appending overrides the type.
            content += bytes((3 << 3, Kind.CONTROL))
        parts.append(_varint((number << 3) | 2) + _varint(len(content)) + content)
    return b"".join(parts)


def _message(value: int | bytes) -> dict[int, int | bytes]:
    """The fields of a nested message. Of a repeated field, the last value."""
    return dict(_fields(_raw(value)))


def _raw(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError(f"not a SentencePiece model: the number {value} where bytes belong")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values. Varints are integers, all other values are raw bytes."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _read_varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"not a SentencePiece model: wire type {wire} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"not a SentencePiece model: it ends within a field, at byte {at}")
        yield number, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
