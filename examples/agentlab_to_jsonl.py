"""Writes the episodes of an AgentLab study as JSON lines, for `mira convert --read browsergym`.

    python agentlab_to_jsonl.py ~/agentlab_results/2026-11-28_my-study episodes.jsonl
    mira convert episodes.jsonl --read browsergym --out runs/agentlab

Run the first command in AgentLab's environment. AgentLab pickles its steps, and unpickling runs any code that is in the file: use it
only on studies of your own. The third argument is the observation that the agent read: pruned_html (the default) or axtree_txt.
"""

import json
import sys
from pathlib import Path

from agentlab.experiments.loop import ExpResult


def episode(result, text: str) -> dict:
    environment, agent, summary = result.exp_args.env_args, result.exp_args.agent_args, result.summary_info
    infos = [info for info in result.steps_info if info.obs]
    acted = [info for info in infos if info.action is not None]
    after = {info.step: info for info in infos}
    steps = [
        {
            **page(info, text),
            "action": info.action,
            "think": info.agent_info.get("think") or "",
            "error": after[info.step + 1].obs.get("last_action_error") or "" if info.step + 1 in after else "",
        }
        for info in acted
    ]
    return {
        "task": environment.task_name,
        "seed": environment.task_seed,
        "agent": agent.agent_name,
        "goal": "\n".join(part["text"] for part in infos[0].obs["goal_object"] if part["type"] == "text"),
        "max_steps": environment.max_steps,
        "steps": steps,
        "end": page(infos[-1], text) if infos[-1].action is None else None,
        "reward": summary.get("cum_reward"),
        "truncated": bool(summary.get("truncated")),
        "error": summary.get("err_msg") or "",
    }


def page(info, text: str) -> dict:
    return {"url": info.obs["url"], "page": info.obs[text]}


def main(study: str, out: str, text: str = "pruned_html") -> None:
    folders = sorted(path.parent for path in Path(study).expanduser().rglob("summary_info.json"))
    if not folders:
        sys.exit(f"{study}: no folder with a summary_info.json in it")
    with open(out, "x", encoding="utf-8") as file:
        for folder in folders:
            file.write(json.dumps(episode(ExpResult(folder), text), allow_nan=False) + "\n")
    print(f"{out}: {len(folders)} episodes")


if __name__ == "__main__":
    main(*sys.argv[1:])
