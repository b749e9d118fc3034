"""Gemma3 to and from Hugging Face folders: config.json, safetensors and tokenizer, in the layout of the Hub.

Reads text-only checkpoints (`model.*`) and the text part of multimodal ones, with the names of the Hub
(`language_model.model.*`) or of transformers in memory (`model.language_model.*`). Writes the names of the Hub.
"""

from mira_jax.models.huggingface.reading import ADAPTER_CONFIG, CONFIG, HubFolder, check, load, load_config, vision_tensors
from mira_jax.models.huggingface.writing import holds, keep_origin, save, write

__all__ = [
    "ADAPTER_CONFIG",
    "CONFIG",
    "HubFolder",
    "check",
    "holds",
    "keep_origin",
    "load",
    "load_config",
    "save",
    "vision_tensors",
    "write",
]
