"""Writes tests/fixtures/gemma3: tiny checkpoints, inputs and logits, all made by transformers.

.venv-peers/bin/python scripts/make_parity_fixtures.py
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import Gemma3Config, Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Gemma3TextConfig

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "gemma3"

LINEAR = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}

TEXT = {
    # One group of six and a tail of one; one kv head; window shorter than the text.
    "tail": {
        "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 7, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8,
    },
    # Positions of global layers divided by 8; two kv heads; a query scale that is not the head dim.
    "scaled": {
        "vocab_size": 67, "hidden_size": 28, "intermediate_size": 36, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 10, "sliding_window": 7, "query_pre_attn_scalar": 7, "rope_parameters": LINEAR,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    # Saved in bf16; as many kv heads as heads; window longer than the text; layer types without a pattern.
    "bfloat16": {
        "vocab_size": 59, "hidden_size": 20, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 12, "sliding_window": 512, "query_pre_attn_scalar": 10,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    },
}  # fmt: skip


def text_model(sizes: dict, seed: int) -> Gemma3ForCausalLM:
    config = Gemma3TextConfig(max_position_embeddings=4096, attn_implementation="eager", **sizes)
    return randomized(Gemma3ForCausalLM(config), seed)


def multimodal_model(seed: int) -> Gemma3ForConditionalGeneration:
    config = Gemma3Config(
        text_config={**TEXT["tail"], "num_hidden_layers": 2, "max_position_embeddings": 4096, "rope_parameters": LINEAR},
        vision_config={
            "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
        },
        mm_tokens_per_image=4, boi_token_index=57, eoi_token_index=58, image_token_index=59, attn_implementation="eager",
    )  # fmt: skip
    return randomized(Gemma3ForConditionalGeneration(config), seed)


def randomized(model, seed: int):
    """Draws every parameter, norms too, so that no wrong use of one goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model.eval().float()


WINDOWS = (1, 20, 21, 22)
"""What the text of 21 tokens of "tail" is read by too: itself alone, and around the edge."""
PROMPT = 9
"""Tokens of each text of "tail" that are its prompt, where gradients are concerned."""


def write(name: str, model, seed: int, dtype=torch.float32) -> None:
    folder = FOLDER / name
    model.to(dtype).save_pretrained(folder)
    # Read back: a cast to bf16 and back would leave rounded RoPE frequencies in the model at hand.
    model = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = torch.randint(3, 55, (2, 21), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    np.savez(folder / "expected.npz", tokens=tokens.numpy().astype(np.int32), logits=logits.numpy().astype(np.float32))


def write_windows(name: str) -> None:
    """Logits of the checkpoint's texts under other windows."""
    folder = FOLDER / name
    tokens = torch.from_numpy(np.load(folder / "expected.npz")["tokens"]).long()
    logits = {}
    for window in WINDOWS:
        model = Gemma3ForCausalLM.from_pretrained(folder, sliding_window=window, attn_implementation="eager").eval()
        with torch.no_grad():
            logits[str(window)] = model(input_ids=tokens).logits.numpy()
    np.savez_compressed(folder / "windows.npz", **logits)


def write_gradients(name: str) -> None:
    """Gradients of the log-probability of all that follows the prompts, by the names of transformers."""
    folder = FOLDER / name
    model = Gemma3ForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = torch.from_numpy(np.load(folder / "expected.npz")["tokens"]).long()
    log_probs = torch.log_softmax(model(input_ids=tokens[:, :-1]).logits[:, PROMPT - 1 :], dim=-1)
    log_probs.gather(2, tokens[:, PROMPT:, None]).sum().backward()
    np.savez_compressed(folder / "gradients.npz", **{name: parameter.grad.numpy() for name, parameter in model.named_parameters()})


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    for seed, (name, sizes) in enumerate(TEXT.items()):
        write(name, text_model(sizes, seed), seed, torch.bfloat16 if name == "bfloat16" else torch.float32)
    write("multimodal", multimodal_model(9), 9)
    write_windows("tail")
    write_gradients("tail")
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"{FOLDER}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
