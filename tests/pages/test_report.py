"""The report in a real browser, on evaluations written through the contract."""

import csv
import json
import re

import numpy as np
import pytest
import scipy.stats

from mira_jax.config import build
from mira_jax.errors import UserError
from mira_jax.recipes.labels import read_labels
from mira_jax.recipes.quality import critic_quality
from mira_jax.trajectories import summary as summaries
from mira_jax.trajectories.records import Page, Status, Subgoal
from rollouts import compare, report
from rollouts.analysis.critics import read_quality
from rollouts.analysis.summary import table
from tests import synthetic as steps
from tests.analysis import synthetic
from tests.pages.browser import HIDDEN, HOSTILE, assert_fits, opened


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three evaluations, side tables, two runs, minutes; and the report made of them by the command."""
    root = tmp_path_factory.mktemp("report")
    made = {}
    for method, skill, seed in (("sft", 0.3, 1), ("filtered_bc", 0.5, 2), ("mira", 0.65, 3)):
        made[method] = synthetic.evaluation(method, skill, 70, seed)
        synthetic.write_evaluation(root / method, made[method])
        synthetic.write_scores(root / f"{method}.npz", made[method], root / method / "labelled")
    synthetic.write_evaluation(root / "other", synthetic.evaluation("other", 0.5, 3, 4))
    for run in ("sft", "actor"):
        synthetic.write_run(root / "runs" / run, steps=150)
    synthetic.write_diagnostics(root / "runs" / "actor")
    labels = read_labels([steps.trajectory(number, 3, success=number % 4 == 0) for number in range(40)])
    columns = {
        "value": np.where(labels.success, 0.9, 0.1),
        "potential": labels.count + 0.2,
        **{f"milestone_{j}": labels.count for j in (1, 2, 3)},
    }
    (root / "critic.json").write_text(json.dumps(critic_quality(labels, columns)))
    (root / "summary-of-phases.json").write_text(json.dumps({"minutes": {"sft": 3.25, "actor": 1.5}}))
    tree = {
        "title": "One phase on the shop",
        "about": "The demonstrator has bad habits.",
        "evaluations": {method: str(root / method) for method in made},
        "scores": {method: [str(root / f"{method}.npz")] for method in made},
        "training": {run: str(root / "runs" / run) for run in ("sft", "actor")},
        "critics": str(root / "critic.json"),
        "stages": str(root / "summary-of-phases.json"),
        "seed": 4,
        "summary": str(root / "numbers.json"),
        "table": str(root / "numbers.csv"),
        "out": str(root / "report.html"),
    }
    (root / "config.yaml").write_text(json.dumps(tree))
    assert report.COMMAND.run(["--config", str(root / "config.yaml")]) == 0
    return root, made


def test_the_summary_holds_seed_and_minutes(written):
    root, _ = written
    summary = summaries.read(root / "numbers.json")
    assert summary.seed == 4 and summary.minutes == {"sft": 3.25, "actor": 1.5}
    assert table(summary).splitlines()[-1] == "minutes: sft 3.2, actor 1.5; in all 4.8"


async def test_the_page_is_whole_quiet_and_asks_for_nothing(written):
    root, _ = written
    async with opened(root / "report.html") as (page, said, asked):
        assert await page.locator("h1").inner_text() == "One phase on the shop"
        assert "3 methods on the same 70 tasks of 14 templates" in await page.locator(".lead").first.inner_text()
        assert await page.locator(".lead").nth(1).inner_text() == "The demonstrator has bad habits."
        assert await page.locator("section h2").all_inner_texts() == [
            "Success",
            "By task template",
            "Progress and failures",
            "Critics",
            "Training",
            "Time",
            "Episodes, step by step",
        ]
        charts = await page.locator("main svg.chart").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
        shown = [width for width in charts if width]
        assert len(shown) >= 5 + 2 * 4 + 1, "headline, pairs, templates, progress, outcomes, minutes, four a run, the open episode"
        assert min(shown) > 200
        await assert_fits(page)
        assert said == []
        assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
        assert sum(url.startswith("file:") for url in asked) == 1


async def test_what_the_critics_are_worth_is_drawn(written):
    root, _ = written
    async with opened(root / "report.html") as (page, _, _):
        charts = page.locator("#critics svg.chart")
        assert await charts.evaluate_all("all => all.map(one => one.getAttribute('aria-label'))") == [
            "Reliability of V",
            "P at the last states of failures",
        ]
        assert await charts.locator("path.curve").count() == 2 + 3
        assert (await page.locator("#critic-table tbody tr").all_inner_texts())[0].split("\t") == [
            "value critic",
            "0.105",
            "0.010",
            "1.000",
        ]


@pytest.mark.parametrize("content", ["[]", '{"value": {"nll": "low"}}', "{}", '{"success": {"accuracy": 0.9}}', '{"value": 3'])
def test_a_file_without_the_measures_of_critics_is_refused(content, tmp_path):
    (tmp_path / "critic.json").write_text(content)
    with pytest.raises(UserError, match="write it again with `mira score`"):
        read_quality(tmp_path / "critic.json")


async def test_distributions_of_a_diagnosed_run_are_drawn(written):
    root, _ = written
    async with opened(root / "report.html") as (page, _, _):
        captions = await page.locator("#training figcaption").all_inner_texts()
        assert [text for text in captions if "by outcome" in text] == [
            "Advantages, by outcome\n successes  failures",
            "Log ratio after update 150, by outcome\n successes  failures",
        ]
        assert await page.locator('#training svg[aria-label="actor: Advantages, by outcome"] path.curve').count() == 2


async def test_episodes_open_step_by_step_and_tabs_follow_keys(written):
    root, made = written
    async with opened(root / "report.html") as (page, said, _):
        task = page.locator("#task-1")
        assert await task.locator(".badge").inner_text() == "only mira"
        panels = task.locator("[role=tabpanel]:visible")
        assert await panels.count() == 1
        selected = task.locator("[role=tab][aria-selected=true]")
        assert (await selected.inner_text()).strip() == "mira solved"
        assert await panels.locator(".step").count() == 8
        assert await panels.locator("rect.cell").count() == 8 * 4
        assert await panels.locator("rect.cell.done").count() == 7 + 5 + 3 + 1, "milestones done after steps 2, 4, 6 and 8"
        step = panels.locator(".step").nth(1)
        assert await step.locator("summary .chip").all_inner_texts() == ['✓ the product page of "blue lamp" is open', "V 0.50", "P 0.20"]
        assert not await step.locator("pre").is_visible()
        await step.locator("summary").click()
        assert await step.locator("pre").inner_text() == synthetic.PAGES[1]
        await task.locator("[role=tab]").first.focus()
        await page.keyboard.press("ArrowRight")
        assert (await selected.inner_text()).strip() == "sft not solved"
        assert await panels.count() == 1
        template = await task.locator("summary > .muted").inner_text()
        endings = [
            f"Ended: {one.status.value.replace('_', ' ')} after {len(one.steps)} steps"
            for one in made["sft"]
            if one.task.template == template
        ]
        assert (await panels.locator(".facts").first.inner_text()).startswith(tuple(endings))
        assert said == []


async def test_without_scripts_every_panel_is_shown(written):
    root, _ = written
    async with opened(root / "report.html", java_script_enabled=False) as (page, _, _):
        assert await page.locator("#task-1 [role=tabpanel]:visible").count() == 3
        assert await page.locator("#task-1 h4:visible").count() == 3
        assert await page.locator("[role=tablist]:visible").count() == 0


async def test_numbers_on_the_page_equal_the_summary_and_the_episodes(written):
    root, made = written
    numbers = json.loads((root / "numbers.json").read_text())
    outcomes = {method: {one.task.id: one.success for one in of if one.status is not Status.INFRA_ERROR} for method, of in made.items()}
    async with opened(root / "report.html") as (page, _, _):
        for method, of in outcomes.items():
            share = numbers["methods"][method]["success_rate"]
            assert share["tasks"] == share["attempts"] == len(of) == 69, "the infrastructure error is no failure"
            assert share["mean"] == pytest.approx(sum(of.values()) / 69)
            row = await page.locator(f'#methods tr[data-method="{method}"]').inner_text()
            assert f"{100 * share['mean']:.1f} %" in row
            assert f"{100 * share['low']:.1f} – {100 * share['high']:.1f} %" in row
            assert f"{100 * share['mean']:.1f} %" in await page.locator("#success svg.chart").first.text_content()
        rows = [row.split() for row in await page.locator("#comparisons tbody tr").all_inner_texts()]
        assert [row[:2] for row in rows] == [["mira", "sft"], ["mira", "filtered_bc"], ["filtered_bc", "sft"]]
        for (treatment, baseline, *cells), one in zip(rows, numbers["comparisons"], strict=True):
            mine, theirs = outcomes[treatment], outcomes[baseline]
            wins, losses = (sum(a[task] and not b[task] for task in mine) for a, b in ((mine, theirs), (theirs, mine)))
            assert (one["treatment"], one["baseline"], one["sided"]) == (treatment, baseline, "two-sided")
            assert (one["wins"], one["losses"], one["ties"]) == (wins, losses, 69 - wins - losses)
            assert one["p_value"] == pytest.approx(scipy.stats.binomtest(wins, wins + losses).pvalue)
            interval = [f"{100 * one['low']:+.1f}", "to", f"{100 * one['high']:+.1f}"]
            assert cells[:7] == [f"{100 * (wins - losses) / 69:+.1f}", *interval, *map(str, (wins, losses, 69 - wins - losses))]
        assert "p, two-sided" in await page.locator("#comparisons thead").inner_text()
        verdict = await page.locator("#verdict").inner_text()
        assert f"{100 * numbers['comparisons'][0]['difference']:+.1f} points" in verdict and "exact McNemar test, two-sided" in verdict
        assert "mira solves more of these tasks than sft, by more than chance would explain." in verdict
        assert "sft 1, filtered_bc 1, mira 1" in await page.locator("#success p.note").last.inner_text()
        await page.locator("#templates details summary").click()
        cells = await page.locator("#template-table tbody tr").first.locator("td").all_inner_texts()
        template = await page.locator("#template-table tbody th").first.inner_text()
        for cell, method in zip(cells, made, strict=True):
            share = numbers["methods"][method]["per_template"][template]
            assert cell.startswith(f"{100 * share['mean']:.1f} %") and cell.endswith(f"n = {share['tasks']}")
        counts = {method: sum(numbers["methods"][method]["failures"].values()) for method in made}
        assert counts == {method: sum(not success for success in of.values()) for method, of in outcomes.items()}
    with open(root / "numbers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 15
    mean = float(next(row["mean"] for row in rows if row["method"] == "mira" and not row["template"]))
    assert mean == numbers["methods"]["mira"]["success_rate"]["mean"]


def several_attempts(method, skill, seed):
    """4 attempts each at 41 tasks, of which one has no outcome, as in every `synthetic.evaluation`."""
    return [
        synthetic.replace(one, id=f"{one.id}-{attempt}", attempt=attempt)
        for attempt in range(4)
        for one in synthetic.evaluation(method, skill, 41, seed + attempt)
    ]


async def test_report_compare_summary_and_table_say_the_same(tmp_path, capsys):
    """Of the same two evaluations with several attempts per task: one difference, interval and p value in all four."""
    for method, skill, seed in (("sft", 0.4, 1), ("mira", 0.55, 5)):
        synthetic.write_evaluation(tmp_path / method, several_attempts(method, skill, seed))
    folders = {method: str(tmp_path / method) for method in ("sft", "mira")}
    tree = {"evaluations": folders, "out": str(tmp_path / "report.html"), "summary": str(tmp_path / "summary.json")}
    report.main(build(report.ReportConfig, tree))
    assert compare.main(compare.CompareConfig(**dict(zip(("baseline", "treatment"), folders.values(), strict=True)))) == 0
    printed = capsys.readouterr().out
    summary = summaries.read(tmp_path / "summary.json")
    (one,) = summary.comparisons
    assert one.test == "exact sign-flip test over tasks" and one.attempts == 4 and one.tasks == 40
    words = f"{summaries.points(one, 0.95)}", summaries.verdict(one)
    assert all(word in printed and word in table(summary) for word in words)
    async with opened(tmp_path / "report.html") as (page, _, _):
        (row,) = await page.locator("#comparisons tbody tr").all_inner_texts()
        assert row.split()[2:9] == [
            f"{100 * one.difference:+.1f}", f"{100 * one.low:+.1f}", "to", f"{100 * one.high:+.1f}",
            str(one.wins), str(one.losses), str(one.ties),
        ]  # fmt: skip
        assert summaries.p_value(one.p_value) in row
        assert "mira more often" in await page.locator("#verdict").inner_text()


async def test_hostile_text_is_inert_and_shown_as_text(tmp_path):
    everything = "".join(HOSTILE) + HIDDEN
    plain = synthetic.trajectory(synthetic.task("t", 1), "m", 4, Status.HORIZON, False)
    steps = [
        synthetic.replace(
            step,
            page=Page(url=everything, observation=everything, screenshot=synthetic.png()),
            response=everything,
            reasoning=everything,
            error=everything,
        )
        for step in plain.steps
    ]
    hostile = synthetic.replace(
        plain,
        task=synthetic.replace(plain.task, intent=everything, template=everything),
        steps=tuple(steps),
        subgoals=tuple(Subgoal(text=everything, check=everything) for _ in plain.subgoals),
        outcome=synthetic.replace(plain.outcome, detail=everything),
        evidence=synthetic.replace(plain.evidence, answer=everything),
        error=everything,
        created=everything,
    )
    name = "m<script>window.hacked = 8</script>"
    synthetic.write_evaluation(tmp_path / "evil", [hostile])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps({"step": step, everything: 1.0 * step}) + "\n" for step in range(3)))
    tree = {
        "title": everything,
        "about": everything,
        "evaluations": {name: str(tmp_path / "evil")},
        "training": {everything: str(tmp_path / "run")},
    }
    report.main(build(report.ReportConfig, tree | {"out": str(tmp_path / "report.html")}))
    async with opened(tmp_path / "report.html") as (page, said, asked):
        await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        await page.mouse.move(300, 300)
        assert await page.evaluate("window.hacked") is None
        assert await page.evaluate("[...document.scripts].length") == 1
        assert await page.locator("h1").count() == 1
        assert await page.locator("img, iframe, base, meta[http-equiv=refresh], [onload], [onerror], [onfocus], [onmouseover]").count() == 0
        shown = await page.locator("pre").first.inner_text()
        assert shown == "".join(HOSTILE) + "safe⟨U+202E⟩gnp.exe⟨U+200B⟩⟨U+0000⟩end"
        assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
        assert said == []


async def test_the_policy_of_the_page_stops_what_escaping_would_miss(written, tmp_path):
    """A script and a picture put into the finished file by hand still do nothing: escaping is not the only lock."""
    root, _ = written
    text = (root / "report.html").read_text()
    text = text.replace("<main>", "<main><script>window.hacked = 1</script><img src='http://127.0.0.1:9/x' onerror='window.hacked = 2'>")
    (tmp_path / "altered.html").write_text(text)
    async with opened(tmp_path / "altered.html") as (page, said, _):
        await page.wait_for_timeout(100)
        assert await page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in line for line in said)
        refused = await page.evaluate("(() => { try { document.body.innerHTML = '<b>x</b>'; return false } catch { return true } })()")
        assert refused, "scripts can't write markup"


def test_screenshots_are_shown_while_there_is_room(tmp_path):
    picture = b"\xff\xd8\xff" + bytes(60_000)
    for method in ("one", "two"):
        synthetic.write_evaluation(tmp_path / method, synthetic.evaluation(method, 0.4, 30, len(method), screenshots=True, picture=picture))
    tree = {
        "evaluations": {"one": str(tmp_path / "one"), "two": str(tmp_path / "two")},
        "trajectories": 12,
        "out": str(tmp_path / "report.html"),
    }
    sizes = {}
    for megabytes in (1.0, 2.0):
        report.main(build(report.ReportConfig, tree | {"max_megabytes": megabytes}))
        text = (tmp_path / "report.html").read_bytes()
        sizes[megabytes] = text.count(b"data:image/jpeg;base64,")
        assert len(text) <= megabytes * 1e6
    assert 0 < sizes[1.0] < sizes[2.0] - 10
    assert b"12 tasks shown" in text


def test_tasks_that_do_not_fit_are_left_out_and_counted(tmp_path):
    made = []
    for number in range(12):
        one = synthetic.trajectory(synthetic.task("t", number), "m", 8, Status.FINISHED, True)
        page = Page(url="", observation="<" * 4000)
        made.append(synthetic.replace(one, steps=tuple(synthetic.replace(step, page=page) for step in one.steps)))
    synthetic.write_evaluation(tmp_path / "m", made)
    tree = {"evaluations": {"m": str(tmp_path / "m")}, "trajectories": 12, "max_megabytes": 1, "out": str(tmp_path / "report.html")}
    report.main(build(report.ReportConfig, tree))
    text = (tmp_path / "report.html").read_text()
    assert 700_000 < len(text.encode()) <= 1_000_000
    shown, left = map(int, re.search(r"(\d+) tasks shown.* (\d+) tasks more would not fit", text).groups())
    assert shown + left == 12 and 4 <= shown == text.count('<details class="task"')


def test_the_same_input_gives_the_same_page_and_replaces_it(written):
    root, _ = written
    before = (root / "report.html").read_bytes()
    assert report.COMMAND.run(["--config", str(root / "config.yaml")]) == 0
    assert (root / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": {}}, "name at least one"),
        ({"baseline": "webrl"}, "baseline: 'webrl' is none of the evaluations sft, filtered_bc, mira"),
        ({"scores": {"x": []}}, "scores: 'x' is none of"),
        ({"evaluations": {"sft": "{root}/nowhere"}, "scores": {}}, "nowhere: no such folder"),
        ({"evaluations": {"sft": "{root}/runs/sft"}, "scores": {}}, "no shards here"),
        ({"scores": {"sft": ["{root}/nowhere.npz"]}}, "nowhere.npz: no such side table"),
        ({"training": {"sft": "{root}/nowhere"}}, "cannot read the metrics of run sft"),
        ({"stages": "{root}/nowhere.json"}, "cannot read the minutes"),
        ({"stages": "{root}/numbers.csv"}, "not JSON"),
        ({"out": "{root}/config.yaml"}, "exists and is not a report"),
        ({"out": "{root}"}, "is a folder"),
        ({"level": 1.5}, "changed.yaml: level: 1.5; it must be above 0 and below 1"),
        ({"evaluations": {"sft": "{root}/sft", "other": "{root}/other"}, "scores": {}}, "not the same tasks: 67 only in sft"),
        ({"titel": "x"}, "did you mean title?"),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_2(written, capsys, changes, message):
    root, _ = written
    tree = json.loads((root / "config.yaml").read_text()) | {"out": str(root / "new.html")}
    tree |= json.loads(json.dumps(changes).replace("{root}", str(root)))
    (root / "changed.yaml").write_text(json.dumps(tree))
    assert report.COMMAND.run(["--config", str(root / "changed.yaml")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
    assert not (root / "new.html").exists()
