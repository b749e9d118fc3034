"""Texts that tokenizers are known to get wrong, from a seed."""

import random
import sys
import unicodedata

MARKS = ("<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<image_soft_token>")
"""Special tokens of Gemma3, spelled out."""
SPECIMENS = (
    *MARKS, "<mask>", "<unused7>", "[multimodal]", "<0x0A>", "<|im_start|>", "<start_of_turn", "start_of_turn>", "<<bos>>",
    "<table>", "</table>", "<b>", "<tr><td>", "<a id=\"", '" options="', " | ", 'do(action="Click", element="', '")',
    "\u2581", "\u2581\u2581", " ", "  ", "   ", " " * 31, " " * 40, "\n", "\n\n", "\n" * 33, "\t", "\t\t\t", "\r\n", "\r", "\0", "\x0b\x0c",
    "\x85", "\u2028", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff", "\ufffd", "\uffff", "\U0010ffff",
    "e\u0301", "a\u0300\u0316\u0323", "\u1100\u1161\u11a8",
    "👩‍👩‍👧", "🇨🇭", "ﬁ", "ß", "İ", "漢字", "مرحبا", "नमस्ते", "שלום", "1234567890", "12.50", "３", "0x1F", "add to cart", "blue lamp",
)  # fmt: skip


def odd_texts(count: int, seed: int) -> list[str]:
    """Strings without surrogates: of all planes, of one small alphabet, of specimens run together, and a few very long ones."""
    draw = random.Random(seed)
    texts = ["", " ", "\n", "\0", "\u2581", "a" * 20_000, " " * 20_000, "\n " * 5_000, "é" * 5_000, *SPECIMENS]
    while len(texts) < count:
        kind = draw.choice((_specimens, _specimens, _any_plane, _small_alphabet, _page))
        texts.append(kind(draw))
    return texts[:count]


def _specimens(draw: random.Random) -> str:
    return "".join(draw.choice(SPECIMENS) for _ in range(draw.randint(1, 12)))


def _any_plane(draw: random.Random) -> str:
    limit = draw.choice((0x80, 0x250, 0x3000, 0x10000, sys.maxunicode + 1))
    characters = (chr(draw.randrange(limit)) for _ in range(draw.randint(1, 40)))
    return "".join(character for character in characters if unicodedata.category(character) != "Cs")


def _small_alphabet(draw: random.Random) -> str:
    alphabet = draw.choice(("ab", "a b", "le ", "<>/ab", "\n\t ", '"=()', "0123", "\u2581 a"))
    return "".join(draw.choice(alphabet) for _ in range(draw.randint(1, 80)))


def _page(draw: random.Random) -> str:
    names = ("blue lamp", "red chair", "add to cart", "Größe wählen", "a\u2581b", "12.50 €", "<end_of_turn>")
    lines = (f'<{draw.choice(("a", "button", "input"))} id="{draw.choice(names)}"> {draw.choice(names)}' for _ in range(draw.randint(1, 8)))
    return draw.choice(("\n", "\r\n", "\n\n")).join(lines)
