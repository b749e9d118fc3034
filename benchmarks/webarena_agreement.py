"""Compares our verdicts on WebArena-Lite's tasks with those of webarena-verified, on answers and on page visits recorded in Chromium.

    python -m venv .venv-verified
    .venv-verified/bin/pip install webarena-verified==1.2.3
    pip install --no-deps browsergym-webarenalite==0.14.3
    python benchmarks/webarena_agreement.py --peer .venv-verified/bin/python

webarena-verified evaluates a JSON answer and a HAR, with its own evaluators, and with tasks that its authors have checked and
partly reworded. It runs in a separate process with its own tasks; ours uses those of WebArena-Lite. The comparison covers tasks that
both evaluate without a model and without a running site: answers by `must_include` or `exact_match`, and pages by `url_match` only.
"""

import argparse
import asyncio
import collections
import datetime
import http.server
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

SITES = ("SHOPPING_ADMIN", "SHOPPING", "REDDIT", "GITLAB", "MAP", "WIKIPEDIA")
KINDS = ("must_include", "exact_match")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=".venv-verified/bin/python", help="the Python that has webarena-verified")
    parser.add_argument("--tasks", default="", help="WebArena-Lite's wheel or JSON, if the package is not installed")
    parser.add_argument("--json", help="file for all cases and both verdicts")
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer:
        return peer()

    from rollouts.suites.webarena.tasks import read_tasks

    checked = {task["task_id"]: task for task in json.loads(_ask(arguments.peer, {"tasks": True}))}
    servers = {f"__{site}__": _Fake() for site in SITES}
    addresses = {site: server.address for site, server in servers.items()}
    addresses["__SHOPPING_ADMIN__"] += "/admin"
    cases = [case for task in read_tasks(arguments.tasks).values() for case in make_cases(task, checked[task["old_task_id"]])]
    asyncio.run(record(cases, addresses))
    theirs = json.loads(_ask(arguments.peer, {"cases": cases, "addresses": addresses}))
    for server in servers.values():
        server.shutdown()

    table: dict[str, collections.Counter[str]] = {}
    for case, verdict in zip(cases, theirs["verdicts"], strict=True):
        mine = ours(case, addresses)
        case |= {"ours": mine, "theirs": verdict}
        outcome = "same" if mine == verdict else "only ours" if mine else "only theirs"
        table.setdefault(case["kind"], collections.Counter()).update(["accepted by ours"] * mine + [outcome])
        if outcome != "same":
            print(f"task {case['task']}, {case['kind']}: {outcome} accepts {case.get('url') or case['answer']!r}")
    print(f"{datetime.date.today()}, webarena-verified {theirs['version']}, {len({case['task'] for case in cases})} tasks")
    print("| case | cases | accepted by ours | same verdict | only ours | only theirs |\n|---|---|---|---|---|---|")
    for kind, counts in table.items():
        columns = (counts[name] for name in ("accepted by ours", "same", "only ours", "only theirs"))
        print(f"| {kind} | {sum(counts.values()) - counts['accepted by ours']} | {' | '.join(map(str, columns))} |")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(cases, indent=1))
    return 0


def make_cases(task: dict[str, Any], checked: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers or addresses for one task, given in WebArena-Lite's version and in webarena-verified's."""
    evaluation, wanted = task["eval"], checked["eval"][0]["expected"]
    common = {"task": task["old_task_id"], "intent": task["intent"], "eval": evaluation, "start": task["start_url"].split(" |AND| ")[0]}
    if evaluation["eval_types"] == ["string_match"] and len(checked["eval"]) == 1 and set(evaluation["reference_answers"]) <= set(KINDS):
        if wanted["status"] != "SUCCESS":
            said = [("answer: that there is none", "N/A", None, wanted["status"])]
        else:
            listed = [[value] if isinstance(value, str) else value for value in evaluation["reference_answers"].values()]
            reference = [text.split(" |OR| ")[0] for texts in listed for text in texts]
            right = [item[0] if isinstance(item, list) else item for item in wanted["retrieved_data"]]
            said = [("answer: Lite's reference", ", ".join(reference), reference, "SUCCESS")]
            said += [("answer: Verified's reference", _text(right), right, "SUCCESS")]
            if len(right) > 1:
                said += [("answer: all but the first of it", _text(right[1:]), right[1:], "SUCCESS")]
        said += [("answer: another", "none of these", ["none of these"], "SUCCESS")]
        return [
            common | {"kind": kind, "answer": answer, "response": {"task_type": "RETRIEVE", "status": status, "retrieved_data": data}}
            for kind, answer, data, status in said
        ]
    if evaluation["eval_types"] == ["url_match"] and wanted["task_type"] == "navigate":
        response = {"task_type": "NAVIGATE", "status": "SUCCESS", "retrieved_data": None}
        reference = evaluation["reference_url"].split(" |OR| ")[0]
        urls = [("Lite's reference", reference), ("with / at its end", reference + "/"), ("without its query", reference.partition("?")[0])]
        urls += [("with page=2", f"{reference}{'&' if '?' in reference else '?'}page=2"), ("another", common["start"] + "/another")]
        return [common | {"kind": f"page: {kind}", "url": url, "response": response} for kind, url in urls]
    return []


def _text(data: Any) -> str:
    if isinstance(data, list | dict):
        return ", ".join(map(_text, data.values() if isinstance(data, dict) else data))
    return str(data)


async def record(cases: list[dict[str, Any]], addresses: dict[str, str]) -> None:
    """Adds to each case the HAR entries of the task's first page and, if it has one, of the case's page. Each page is visited once."""
    from playwright.async_api import async_playwright

    from rollouts.suites.base import to_address
    from rollouts.web.browser import find_executables

    visits = [[to_address(url, addresses) for url in (case["start"], case.get("url")) if url] for case in cases]
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "visits.har"
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=find_executables(None)[0], args=["--no-sandbox"])
            context = await browser.new_context(record_har_path=path, record_har_content="omit")
            page = await context.new_page()
            for url in dict.fromkeys(url for urls in visits for url in urls):
                await page.goto(url)
            await context.close()
            await browser.close()
        entries = json.loads(path.read_text())["log"]["entries"]
    for case, urls in zip(cases, visits, strict=True):
        case["har"] = [next(entry for entry in entries if _same(entry["request"]["url"], url)) for url in urls]


def _same(recorded: str, asked: str) -> bool:
    return recorded == asked or recorded == asked + "/"


def ours(case: dict[str, Any], addresses: dict[str, str]) -> bool:
    from rollouts.suites.base import to_address, to_placeholder
    from rollouts.suites.evaluators import string_match, url_match

    evaluation = case["eval"]
    if "url" in case:
        return not url_match(evaluation["reference_url"], to_placeholder(to_address(case["url"], addresses), addresses))
    return not string_match(evaluation["reference_answers"], case["answer"], case["intent"], evaluation.get("string_note") or "", None)


class _Fake(http.server.ThreadingHTTPServer):
    """A site on which every page exists."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>page</title>")

    def log_message(self, *_: Any) -> None:
        pass


def _ask(python: str, question: dict[str, Any]) -> str:
    command = [python, __file__, "--as-peer"]
    return subprocess.run(command, input=json.dumps(question), stdout=subprocess.PIPE, text=True, check=True).stdout


def peer() -> int:
    """The peer's process: reads cases, writes verdicts."""
    import logging

    from webarena_verified.api import WebArenaVerified
    from webarena_verified.types.config import WebArenaVerifiedConfig

    logging.disable(logging.CRITICAL)
    question = json.load(sys.stdin)
    if "tasks" in question:
        data = importlib.metadata.distribution("webarena-verified").locate_file("webarena_verified/assets/dataset/webarena-verified.json")
        print(Path(str(data)).read_text())
        return 0
    environments = {site: {"urls": [address]} for site, address in question["addresses"].items()}
    judge = WebArenaVerified(config=WebArenaVerifiedConfig(environments=environments))
    verdicts = []
    for case in question["cases"]:
        result = judge.evaluate_task(task_id=case["task"], agent_response=case["response"], network_trace=case["har"])
        if result.error_msg:
            raise SystemExit(f"task {case['task']}: {result.error_msg}")
        verdicts.append(result.score == 1.0)
    print(json.dumps({"verdicts": verdicts, "version": importlib.metadata.version("webarena-verified")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
