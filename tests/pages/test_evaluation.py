"""The page of an evaluation in a real browser, on episodes as a real evaluation leaves them."""

from pathlib import Path

import pytest

from mira_jax.trajectories.records import Status
from rollouts.analysis.evaluation import read_episodes
from rollouts.analysis.figures import gather, summarize
from rollouts.pages import evaluation as evaluation_page
from tests.analysis import synthetic
from tests.pages.browser import HIDDEN, HOSTILE, assert_fits, opened


def render(trajectories, lost=(), prices=(0.0, 0.0)):
    judged, given_up = read_episodes(trajectories, Path("here")), read_episodes(lost, Path("there"))
    summary = gather({"m": summarize("m", judged, given_up, prices)}, judged)
    return evaluation_page.render(synthetic.replace(summary, task_seed=7), judged, given_up)


def written(path, *args, **options):
    path.write_text(render(*args, **options))
    return path


def two_attempts():
    """Of 70 tasks of 14 templates, of which one was lost: those judged, and those lost."""
    made = [
        synthetic.replace(
            one, id=f"{one.id}-{attempt}", attempt=attempt, task=synthetic.replace(one.task, sites=("shop", "admin")[: 1 + number % 2])
        )
        for attempt in (0, 1)
        for number, one in enumerate(synthetic.evaluation("mira", 0.5, 70, seed=attempt))
    ]
    return [one for one in made if one.outcome], [one for one in made if not one.outcome]


async def test_the_page_is_whole_quiet_and_asks_for_nothing(tmp_path):
    judged, lost = two_attempts()
    path = written(tmp_path / "evaluation.html", judged, lost, prices=(0.15, 0.6))
    method = summarize("m", read_episodes(judged, tmp_path), read_episodes(lost, tmp_path), (0.15, 0.6))
    async with opened(path) as (page, said, asked):
        assert await page.locator("h1").inner_text() == "mira"
        lead = await page.locator(".lead").inner_text()
        assert lead.startswith("shop, split test: 70 tasks of 14 templates; 2 attempts each; temperature 0; seed 7; checkpoint runs/mira")
        assert await page.locator("section h2").all_inner_texts() == [
            "Success",
            "By domain and template",
            "Several attempts",
            "How episodes ended",
            "Failing tasks",
        ]
        solved = method.success_rate
        tiles = await page.locator(".tiles").inner_text()
        assert f"{100 * solved.mean:.1f} %" in tiles and "138" in tiles and "2 more without an outcome" in tiles
        assert f"${method.cost.usd:.2g}" in tiles
        domains = await page.locator("#per-domain tbody tr").all_inner_texts()
        assert [row.split()[0] for row in domains] == ["admin+shop", "shop"]
        assert await page.locator("#per-template tbody tr").count() == 14
        bars = await page.locator("svg.rate").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
        assert len(bars) == 2 + 14 and set(bars) == {26}
        row = await page.locator("#pass-at tbody tr").nth(1).inner_text()
        both = method.pass_at_k[2]
        assert row.split() == f"2 {100 * both.mean:.1f} % {100 * both.low:.1f} – {100 * both.high:.1f} % 69".split()
        statuses = await page.locator("#statuses tbody tr").all_inner_texts()
        assert {row.split("\t")[0].strip().lower().replace(" ", "_"): int(row.split("\t")[1]) for row in statuses} == method.status
        failing = {one.task.id for one in judged if not one.success}
        assert await page.locator("#failing > .failing").first.locator("li").count() == len(failing)
        assert "not solved at every attempt" in await page.locator("#failing > .note").first.inner_text()
        assert await page.locator("#failing .outcome").first.inner_text() == "0 of 2 solved"
        assert await page.locator("#lost li").count() == 2 and "the browser closed" in await page.locator("#lost").inner_text()
        await assert_fits(page)
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()], "one file, and nothing from elsewhere"


async def test_hostile_text_is_inert_and_shown_as_text(tmp_path):
    everything = "".join(HOSTILE) + HIDDEN
    plain = synthetic.trajectory(synthetic.task("t", 1), "m", 4, Status.HORIZON, False)
    hostile = synthetic.replace(
        plain,
        task=synthetic.replace(plain.task, id=HIDDEN + HOSTILE[0], intent=HIDDEN + HOSTILE[1], template=everything, sites=(everything,)),
        policy=synthetic.replace(plain.policy, name=everything, checkpoint=everything),
        outcome=synthetic.replace(plain.outcome, detail=everything),
        created=everything,
    )
    lost = synthetic.trajectory(synthetic.replace(plain.task, id=everything), "m", 0, Status.INFRA_ERROR, False)
    path = written(tmp_path / "evaluation.html", [hostile], [synthetic.replace(lost, error=HOSTILE[2] + HIDDEN)])
    async with opened(path) as (page, said, asked):
        await page.mouse.move(300, 300)
        assert await page.evaluate("window.hacked") is None
        assert await page.locator("script, img, iframe, base, meta[http-equiv=refresh]").count() == 0
        assert await page.locator("[onload], [onerror], [onfocus], [onmouseover], a:not(nav a)").count() == 0
        assert await page.locator("h1").count() == 1
        shown = "safe⟨U+202E⟩gnp.exe⟨U+200B⟩⟨U+0000⟩end"
        assert await page.locator(".intent").inner_text() == shown + HOSTILE[1]
        assert await page.locator(".failing .facts bdi").first.inner_text() == shown + HOSTILE[0]
        assert HOSTILE[2] + shown in await page.locator("#lost").inner_text()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert said == []


async def test_the_policy_of_the_page_stops_what_escaping_would_miss(tmp_path):
    judged, lost = two_attempts()
    path = written(tmp_path / "evaluation.html", judged, lost)
    path.write_text(path.read_text().replace("<main>", "<main><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"))
    async with opened(path) as (page, said, _):
        await page.wait_for_timeout(100)
        assert await page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in line for line in said)


def test_one_attempt_at_each_task_says_nothing_of_several():
    text = render([synthetic.trajectory(synthetic.task("t", number), "m", 4, Status.FINISHED, True) for number in range(3)])
    assert "one attempt each" in text and "None: all 3 were solved." in text
    assert "Several attempts" not in text and "Cost" not in text and "Without an outcome" not in text


def test_tasks_never_solved_come_first_and_a_long_list_is_cut(monkeypatch):
    solved = {1: (False, True), 2: (False, False), 3: (True, True), 4: (True, False), 5: (False, False)}
    made = [
        synthetic.replace(
            synthetic.trajectory(synthetic.task("t", number), "m", 4, Status.FINISHED if one else Status.STUCK, one),
            id=f"{number}-{attempt}",
            attempt=attempt,
        )
        for number, outcomes in solved.items()
        for attempt, one in enumerate(outcomes)
    ]
    failing = evaluation_page.failing_tasks(read_episodes(made, Path("here")))
    assert [task.id[-1] for task in failing] == ["2", "5", "1", "4"]
    assert [task.solved for task in failing] == ["0 of 2 solved", "0 of 2 solved", "1 of 2 solved", "1 of 2 solved"]
    assert failing[0].endings.startswith("stuck after 4 steps") and failing[0].endings.endswith("(2 times)")
    monkeypatch.setattr(evaluation_page, "MOST_TASKS", 3)
    text = render(made)
    assert "The first 3 are listed." in text and text.count('class="intent"') == 3


@pytest.mark.parametrize(
    ("usd", "words"), [(0.0, "$0.00"), (1234.5, "$1,234.50"), (0.1, "$0.10"), (0.0123, "$0.012"), (0.00000456, "$0.0000046")]
)
def test_small_sums_keep_two_digits(usd, words):
    assert evaluation_page._usd(usd) == words
