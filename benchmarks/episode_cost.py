"""What 100 episodes cost with each model of a price list, by role (docs/chat-models.md).

    python benchmarks/episode_cost.py --out runs/cost

The arena's expert attempts tasks of the test split, without a browser. A local server stands for the model of every other role, and the
real commands ask it: `mira collect` with a planner, `mira subgoals`, and `mira label` with a checker and a judge. Its answers have a
plausible length and no meaning. It counts the characters of all messages and answers. For the policy, the prompts of a chat policy are
built for the recorded episodes, and the responses are the expert's.

A token is taken to be four characters. Nobody thinks: the thoughts of a reasoning model are paid as response tokens and come on top. No
discount for cached prompts is counted.
"""

import argparse
import collections
import contextlib
import dataclasses
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.files import to_json, write_atomically
from mira_jax.trajectories.prompts import chat_messages, rounds
from mira_jax.trajectories.records import Trajectory
from mira_jax.trajectories.shards import ShardReader
from rollouts import collect, label, subgoals
from rollouts.agents.base import ChatConfig
from rollouts.agents.model_planner import ENDING

CHARACTERS_PER_TOKEN = 4
ROLES = {
    "Subgoals": "planner",
    "Check": "planner",
    "Written": "writer of subgoals",
    "Checked": "checker of subgoals",
    "Criteria": "judge",
    "Verdict": "judge",
}
"""The form of an answer to the role that asks for it."""
COUNT = 4
"""Number of subgoals."""
SENTENCE = "The page of the order shows the product with the quantity that the instruction names."


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """USD per million tokens."""

    model: str
    prompt: float
    response: float
    source: str
    as_of: str


@dataclasses.dataclass
class Used:
    requests: int = 0
    prompt: int = 0
    """Characters."""
    response: int = 0

    def cost(self, price: Price) -> float:
        """In USD."""
        return (self.prompt * price.prompt + self.response * price.response) / CHARACTERS_PER_TOKEN / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--prices", type=Path, default=Path("configs/chat/prices.yaml"))
    arguments = parser.parse_args()
    prices = read_prices(arguments.prices)
    with counting() as (url, used):
        episodes = run(arguments.out, arguments.episodes, url)
    used["policy"] = of_policy(episodes)
    print("\n".join(table(used, prices, len(episodes), sum(len(one.steps) for one in episodes))))
    tree = {role: dataclasses.asdict(one) for role, one in used.items()}
    write_atomically(arguments.out / "characters.json", to_json(tree, indent=1).encode())


def read_prices(path: Path) -> list[Price]:
    """Raises UserError if the file is not a list of prices."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8"))["prices"], list[Price])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, msgspec.ValidationError) as error:
        raise UserError(f"{path}: not a list of prices: {error}") from None


def run(out: Path, count: int, url: str) -> list[Trajectory]:
    """Runs the commands. Returns the collected episodes."""
    endpoint = {"base_url": f"{url}/v1"}
    suite = {"name": "arena"}
    tree: dict[str, Any] = {
        "out": str(out / "episodes"),
        "suite": suite,
        "split": "test",
        "episodes": count,
        "policy": {"kind": "expert"},
        "planner": {"kind": "model", "count": COUNT, "model": {"endpoint": endpoint}},
        "browser": {"driver": "asgi"},
    }
    collect.main(build(collect.COMMAND.config_type, tree))
    written = str(out / "subgoals.json")
    writer = {"model": {"endpoint": endpoint}}
    subgoals.main(
        build(subgoals.SubgoalsConfig, {"out": written, "suite": suite, "episodes": [tree["out"]], "count": COUNT, "writer": writer})
    )
    checker = {"kind": "model", "model": {"endpoint": endpoint}}
    labels = {
        "folder": tree["out"],
        "out": str(out / "labelled"),
        "suite": suite,
        "milestones": {"kind": "subgoals", "file": written, "checker": checker},
        "judge": {"kind": "model", "model": {"endpoint": endpoint}},
    }
    label.main(build(label.LabelConfig, labels))
    return list(ShardReader(tree["out"]))


def of_policy(episodes: list[Trajectory]) -> Used:
    """What a chat policy would have read and written, with the plan that the planner showed."""
    used, most = Used(), ChatConfig().max_characters
    for one in episodes:
        for step in one.steps:
            past = rounds(one.steps[: step.index])
            messages = chat_messages(one.task.intent, past, step.page.observation, most, step.plan)
            used.requests += 1
            used.prompt += sum(len(message["content"]) for message in messages)
            used.response += len(step.response)
    return used


@contextlib.contextmanager
def counting() -> Iterator[tuple[str, dict[str, Used]]]:
    """A chat model of any role. Yields its address, without /v1, and what each role has used."""
    used: dict[str, Used] = collections.defaultdict(Used)
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send({"data": [{"id": "counting"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            form = body["response_format"]["json_schema"]["name"]
            text = answer(form, body["messages"][-1]["content"])
            size = sum(len(message["content"]) for message in body["messages"])
            with lock:
                one = used[ROLES[form]]
                one.requests += 1
                one.prompt += size
                one.response += len(text)
            tokens = {"prompt_tokens": size // CHARACTERS_PER_TOKEN, "completion_tokens": len(text) // CHARACTERS_PER_TOKEN}
            self.send({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}], "usage": tokens})

        def send(self, tree: dict[str, Any]) -> None:
            body = json.dumps(tree).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", used
    finally:
        server.shutdown()
        server.server_close()


def answer(form: str, question: str) -> str:
    """A valid answer of plausible length."""
    texts = [f"The page of step {number} of the task is open" for number in ("one", "two", "three", "four")]
    if form == "Subgoals":
        return json.dumps({"subgoals": texts})
    if form == "Written":
        return json.dumps({"subgoals": [{"number": number, "text": text} for number, text in enumerate(texts, 1)]})
    if form == "Check":
        return json.dumps(_check(question))
    data, _ = json.JSONDecoder().raw_decode(question)
    if form == "Checked":
        following = len(data["done"]) + 1
        first = data["steps"][0]["step"]
        return json.dumps({"done": [{"subgoal": following, "step": first, "evidence": SENTENCE}]})
    if form == "Criteria":
        return json.dumps({"criteria": [{"text": SENTENCE, "part": "outcome", "essential": essential} for essential in (True, False)]})
    found = {f"criterion_{number}": {"evidence": SENTENCE, "step": 0, "met": True} for number in range(1, len(data["criteria"]) + 1)}
    return json.dumps({**found, "uncontrollable": "", "success": True})


def _check(question: str) -> dict[str, Any]:
    """One more subgoal is done after every third action, and all at the end."""
    actions = sum(
        line[:1].isdigit() and ": " in line for line in question.partition("Actions so far:\n")[2].partition("\n\n")[0].splitlines()
    )
    done = COUNT if ENDING in question else min(actions // 3, COUNT - 1)
    current = question.partition("Current: ")[2].partition("\n")[0]
    return {
        "reason": SENTENCE,
        "done": list(range(1, done + 1)),
        "complete": current.isdigit() and int(current) <= done,
        "next": done + 1 if done < COUNT else 0,
        "astray": False,
    }


def table(used: Mapping[str, Used], prices: list[Price], episodes: int, steps: int) -> list[str]:
    """Markdown. Tokens are in thousands, costs in USD."""
    lines = [f"{episodes} episodes, {steps} steps", ""]
    lines += ["| role | requests | prompt tokens | response tokens | " + " | ".join(price.model for price in prices) + " |"]
    lines += ["|---" * (4 + len(prices)) + "|"]
    total = Used(*(sum(getattr(one, name) for one in used.values()) for name in ("requests", "prompt", "response")))
    for role, one in (*sorted(used.items(), key=lambda item: -item[1].prompt), ("all", total)):
        costs = " | ".join(f"{one.cost(price):.2f}" for price in prices)
        lines.append(f"| {role} | {one.requests:,} | {thousands(one.prompt)} | {thousands(one.response)} | {costs} |")
    return lines


def thousands(characters: int) -> str:
    """Thousands of tokens."""
    return f"{characters / CHARACTERS_PER_TOKEN / 1000:,.0f} k"


if __name__ == "__main__":
    main()
