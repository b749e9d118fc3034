"""Runs the config code of vLLM and SGLang on the config.json of our exports, without a GPU.

Writes the config of every preset, text-only and multimodal, and of the policy of the shop. Then, once for each engine given, runs that
engine's own modules on them: they read and check the config, derive the context length, and determine the RoPE values that
their Gemma3 uses. Code that needs a compiled kernel (the inspection of the model's class) is replaced.

    pip download --no-deps vllm==0.33.0 && unzip -q vllm-0.33.0-*.whl '*.py' '*METADATA' -d vllm-0.33.0
    python benchmarks/engine_configs.py --write configs/                                  # where mira_jax is installed
    python benchmarks/engine_configs.py --read configs/ --engine vllm --path vllm-0.33.0  # where torch, transformers and
                                                                                          # the engine's requirements are
"""

import argparse
import dataclasses
import importlib.abc
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from unittest import mock

VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
OUTER = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "boi_token_index": 255_999,
    "eoi_token_index": 256_000,
    "image_token_index": 262_144,
    "mm_tokens_per_image": 256,
    "vision_config": VISION,
}
SHOP = {"vocabulary_size": 1024, "width": 128, "layers": 4, "query_heads": 4, "kv_heads": 2, "head_dim": 32, "mlp_width": 384}


def write(folder: Path) -> None:
    from mira_jax.models.config import PRESETS, Gemma3Config

    for name, sizes in {**PRESETS, "shop": Gemma3Config(**SHOP, window=512, query_scale=8)}.items():
        text = {**sizes.to_huggingface(), "torch_dtype": "bfloat16"}
        inner = {key: value for key, value in text.items() if key != "architectures"}
        outer = {**OUTER, "eos_token_id": [1, 106], "tie_word_embeddings": True, "text_config": inner, "torch_dtype": "bfloat16"}
        for kind, tree in {"text": text, "vision": outer}.items():
            if (name, kind) in (("shop", "vision"), ("270m", "vision"), ("1b", "vision")):
                continue
            path = folder / f"{name}-{kind}"
            path.mkdir(parents=True, exist_ok=True)
            (path / "config.json").write_text(json.dumps(tree, indent=2))


STUBBED = ("sgl_kernel", "flashinfer", "llguidance", "outlines", "torchao", "IPython", "zmq")
"""Packages that the engines import before their config code, but that this code does not use."""


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Provides empty modules in place of packages that are not installed."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in STUBBED else None

    def create_module(self, spec):
        module = mock.MagicMock(name=spec.name)
        module.__spec__, module.__path__, module.__name__, module.__version__ = spec, [], spec.name, "0"
        return module

    def exec_module(self, module):
        pass


def vllm(folder: str):
    """Returns (text config, context length) from vLLM's ModelConfig."""
    from vllm.model_executor.models import registry

    fields = {field.name: False for field in dataclasses.fields(registry._ModelInfo)}
    stated = {"is_text_generation_model": True, "supports_multimodal": "vision" in folder, "attn_type": "decoder"}
    fields |= {name: value for name, value in stated.items() if name in fields}

    def inspect(self, architectures, *_, **__):
        first = [architectures] if isinstance(architectures, str) else list(architectures)
        return registry._ModelInfo(**{**fields, "architecture": first[0]}), first[0]

    registry._ModelRegistry.inspect_model_cls = inspect
    from vllm.config import ModelConfig

    model = ModelConfig(model=folder, skip_tokenizer_init=True, dtype="bfloat16", enforce_eager=True)
    return model.hf_text_config, model.max_model_len


def sglang(folder: str):
    """Returns (text config, context length) from SGLang's ModelConfig."""
    if "sglang" not in sys.modules:
        # Loads the package without its __init__, which imports the frontend.
        spec = importlib.machinery.PathFinder.find_spec("sglang", sys.path)
        package = types.ModuleType("sglang")
        package.__path__, package.__spec__ = list(spec.submodule_search_locations), spec
        sys.modules["sglang"] = package
    from sglang.srt.configs.model_config import ModelConfig

    model = ModelConfig(model_path=folder)
    return model.hf_text_config, model.context_len


def rope(config, kind: str) -> tuple[float, float]:
    """Returns (base, factor) of one kind of layer, from `rope_parameters` if the engine reads these, else from the older keys.

    The factor of global layers is required: Gemma3 of SGLang 0.5.13 reads rope_parameters["full_attention"]["factor"].
    """
    parameters = getattr(config, "rope_parameters", None)
    if isinstance(parameters, dict) and kind in parameters:
        return parameters[kind]["rope_theta"], 1.0 if kind == "sliding_attention" else parameters[kind]["factor"]
    if kind == "sliding_attention":
        return config.rope_local_base_freq, 1.0
    return config.rope_theta, (config.rope_scaling or {}).get("factor", 1.0)


def read(folder: Path, engine: str) -> int:
    import transformers

    sys.meta_path.append(Stubs())
    wrong = 0
    for path in sorted(folder.iterdir()):
        tree = json.loads((path / "config.json").read_text())
        stated = tree.get("text_config", tree)
        try:
            text, length = {"vllm": vllm, "sglang": sglang}[engine](str(path))
            found = {
                "length": length,
                "layer_types": list(text.layer_types),
                "window": text.sliding_window,
                "scale": text.query_pre_attn_scalar,
                "local": rope(text, "sliding_attention"),
                "global": rope(text, "full_attention"),
            }
            expected = {
                "length": stated["max_position_embeddings"],
                "layer_types": stated["layer_types"],
                "window": stated["sliding_window"],
                "scale": stated["query_pre_attn_scalar"],
                "local": (stated["rope_local_base_freq"], 1.0),
                "global": (stated["rope_theta"], (stated["rope_scaling"] or {}).get("factor", 1.0)),
            }
            differs = {key: (found[key], expected[key]) for key in found if found[key] != expected[key]}
            verdict = f"differs: {differs}" if differs else "accepted"
        except Exception as error:
            verdict = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:150] if str(error).strip() else ''}"
        wrong += verdict != "accepted"
        print(f"{path.name:14s} {verdict}")
    print(f"transformers {transformers.__version__}: {'all accepted' if not wrong else f'{wrong} not accepted'}")
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the configs there")
    parser.add_argument("--read", type=Path, metavar="FOLDER", help="let an engine read them")
    parser.add_argument("--engine", choices=("vllm", "sglang"))
    parser.add_argument("--path", type=Path, help="the engine's unpacked wheel, if it is not installed")
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write)
        return 0
    if arguments.path:
        sys.path.insert(0, str(arguments.path))
    return read(arguments.read, arguments.engine)


if __name__ == "__main__":
    sys.exit(main())
