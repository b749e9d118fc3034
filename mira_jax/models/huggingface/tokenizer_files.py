"""The tokenizer files of a Hub folder, and the token ids in config.json and generation_config.json."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mira_jax.model_files import locate, read_json
from mira_jax.models.config import Gemma3Config
from mira_jax.trajectories import chat
from mira_jax.trajectories.tokenizer import FAST, GENERATION, OLD_TEMPLATE, SETTINGS, TEMPLATE, TOKENS, Tokenizer

GEMMAS_IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": [1, 106]}
GEMMAS_WORDS = 262_144


@dataclasses.dataclass(frozen=True)
class TokenizerFiles:
    ids: dict[str, Any]
    """pad_token_id, bos_token_id and eos_token_id, for both configs."""
    copies: dict[str, Path]
    """Files to copy, by name in the new folder."""
    documents: dict[str, Any]
    """JSON to write, by name in the new folder."""


def plan(path: str | Path | None, config: Gemma3Config, origin: str | Path | None) -> TokenizerFiles:
    """The parts of an export other than config.json and the weights.

    An existing tokenizer.json is copied with all related files. For a tokenizer.model, a tokenizer.json with the same ids is
    written, so that readers do not need SentencePiece. A folder without a chat template gets Gemma's.

    Args:
        path: the tokenizer, as in `Tokenizer`; None if there is none.
        origin: a Hub folder whose generation config is the basis of the export's, unless the tokenizer's folder has one.

    Raises:
        UserError: the tokenizer cannot be read, has ids without a row in the embedding, or cannot be converted to
            tokenizer.json.
    """
    generation = read_json(Path(origin) / GENERATION) if origin and locate(Path(origin) / GENERATION) else {"do_sample": True}
    if path is None:
        ids = _ids_of(generation, config)
        return TokenizerFiles(ids, {}, {GENERATION: {**generation, **ids}})
    tokenizer = Tokenizer(path)
    tokenizer.fit(config.vocabulary_size, path)
    ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": list(tokenizer.end_ids)}
    copies, documents = dict(tokenizer.files), {}
    if GENERATION in copies:
        generation = read_json(copies.pop(GENERATION))
    documents[GENERATION] = {**generation, **ids}
    settings = read_json(copies[SETTINGS]) if SETTINGS in copies else None
    if FAST not in copies:
        documents[FAST] = tokenizer.to_json()
        copies.pop(TOKENS, None)
        settings = None
    if settings is None or not tokenizer.chat_template:
        template = {} if TEMPLATE in copies or OLD_TEMPLATE in copies else {"chat_template": tokenizer.chat_template or chat.GEMMA}
        documents[SETTINGS] = {**(settings or _settings(tokenizer.names, config.max_positions)), **template}
        copies.pop(SETTINGS, None)
    return TokenizerFiles(ids, copies, documents)


def _settings(names: Mapping[str, str], max_positions: int) -> dict[str, Any]:
    """A tokenizer_config.json that makes readers use tokenizer.json unchanged.

    GemmaTokenizer of transformers 5 does not: it adds <mask> as a separate token, beyond the embedding.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: names[name] for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
        # Without this key, transformers 4.57 also creates token_type_ids, which Gemma3's `generate` refuses.
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
    }


def _ids_of(generation: Mapping[str, Any], config: Gemma3Config) -> dict[str, Any]:
    """The ids for a model without a tokenizer: those in its generation config, or Gemma's if the vocabulary has Gemma's size."""
    known = GEMMAS_IDS if config.vocabulary_size >= GEMMAS_WORDS else {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    return {name: generation.get(name, default) for name, default in known.items()}
