"""Asks a served policy for its next action, with OpenAI's client.

    mira serve --model runs/sft --port 8000
    python examples/served_policy.py runs/sft http://127.0.0.1:8000/v1

prints the model's name, the response to a small page, and the probability of each of its tokens. The prompt is encoded as in
rollouts and training, and sent as token ids. Needs the extra `train` for the server and the package `openai` here.
"""

import math
import sys

import openai

from mira_jax.trajectories.prompts import PromptConfig, prompt_ids
from mira_jax.trajectories.tokenizer import Tokenizer

INTENT = 'Add "blue lamp" to the cart.'
PAGE = '<h1>lamps</h1>\n<a id="blue lamp"> 12.50\n<a id="red lamp"> 9.00'


def main(model: str, base_url: str) -> None:
    prompt = prompt_ids(INTENT, [], PAGE, PromptConfig(version="compact"), Tokenizer(model))
    with openai.OpenAI(base_url=base_url, api_key="none") as client:
        name = client.models.list().data[0].id
        answer = client.completions.create(model=name, prompt=prompt, max_tokens=32, temperature=0, logprobs=0).choices[0]
    print(f"{name}: {answer.text}")
    for token, log_prob in zip(answer.logprobs.tokens, answer.logprobs.token_logprobs, strict=True):
        print(f"{math.exp(log_prob):8.4f}  {token!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
