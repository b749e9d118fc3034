"""SentencePiece models of each kind that is exported, trained in a second."""

from pathlib import Path

import sentencepiece

from mira_jax.trajectories.tokenizer import train_tokenizer

CORPUS = [
    'Buy 2 of "blue lamp" for 12.50', 'do(action="Click", element="add to cart")', "<a> 12.50 red chair </a>",
    "Größe wählen e\u0301 漢字 hello world the cat sat", '<a id="shop">\n<input id="search" value="red">', 'exit(message="done")',
] * 20  # fmt: skip
SYMBOLS = (
    '<a id="', '<input id="', '" value="', '" checked>', '">', " | ", 'do(action="Click", element="',
    'do(action="Select Dropdown Option", argument="', '", element="', '")', 'exit(message="', '"',
)  # fmt: skip
"""As in configs/shop/sft.yaml: most with spaces, some the beginning of others."""


def plain(path: Path) -> None:
    train_tokenizer(CORPUS, path, 600)


def with_symbols(path: Path) -> None:
    train_tokenizer(CORPUS, path, 600, SYMBOLS)


def like_gemmas(path: Path) -> None:
    """Gemma3's kinds of pieces: its turn and image marks, runs of whitespace and HTML tags are all user-defined symbols."""
    symbols = [
        "<mask>", "[multimodal]", *(f"<unused{number}>" for number in range(10)), "<start_of_turn>", "<end_of_turn>",
        *("\n" * count for count in range(1, 32)), *("\u2581" * count for count in range(2, 32)), "\t", "\t\t", "\t\t\t",
        "<table>", "</table>", "<tr>", "<td>", "<b>", "</b>", "<start_of_image>", "<end_of_image>",
    ]  # fmt: skip
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(CORPUS), model_prefix=str(path.with_suffix("")), model_type="bpe", vocab_size=700, hard_vocab_limit=False,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", user_defined_symbols=symbols,
        byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity",
        character_coverage=1.0, split_digits=True, allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip


KINDS = {"plain": plain, "symbols": with_symbols, "gemma": like_gemmas}
