"""Writes tasks.json beside this file: tasks on the library, in three splits. Tasks can as well be written by hand.

python examples/your_site/make_tasks.py
"""

import json
import random
from pathlib import Path

from library import BOOKS

SPLITS = ["train"] * 3 + ["validation"] + ["test"]


def click(element: str) -> str:
    return f'do(action="Click", element="{element.lower()}")'


def borrow(titles: list[str]) -> dict:
    steps = [[click("books"), click(title), click("borrow")] for title in titles]
    return {
        "template": "borrow" if len(titles) == 1 else "borrow_two",
        "intent": "Borrow " + " and ".join(f'"{title}"' for title in titles) + ".",
        "eval": {"eval_types": ["state_match"], "state": {"library.borrowed": titles}},
        "milestones": [{"text": f'"{one}" is borrowed', "done": {"state": {f"library.borrowed.{i}": one}}} for i, one in enumerate(titles)],
        "solution": [step for part in steps for step in part][1:],
    }


def year(title: str) -> dict:
    answer = str(BOOKS[title][1])
    return {
        "template": "year",
        "intent": f'When was "{title}" published?',
        "eval": {"eval_types": ["string_match"], "reference_answers": {"exact_match": answer}},
        "milestones": [{"text": "the page of the book is open", "done": {"text": f"published in {answer}"}}],
        "solution": [click(title), f'exit(message="{answer}")'],
    }


def main() -> None:
    titles = list(BOOKS)
    pairs = [[one, other] for one in titles for other in titles if one != other]
    random.Random(0).shuffle(pairs)
    made = [borrow([title]) for title in titles] + [year(title) for title in titles] + [borrow(pair) for pair in pairs[:60]]
    tasks = [
        {"task_id": number, "sites": ["library"], "start_url": "__LIBRARY__/", "split": SPLITS[number % len(SPLITS)], "horizon": 10, **one}
        for number, one in enumerate(made)
    ]
    Path(__file__).with_name("tasks.json").write_text(json.dumps(tasks, indent=1) + "\n")


if __name__ == "__main__":
    main()
