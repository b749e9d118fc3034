"""Questions about the contents of the code host."""

from random import Random

from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.content import MAIN, CodeContent
from mira_arena.sites.paths import page_url
from mira_arena.tasks import milestones as done
from mira_arena.tasks.code.milestones import on_issue, on_project, page
from mira_arena.tasks.code.moves import open_project
from mira_arena.tasks.code.targets import code_targets
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template


def tell_commit_count(random: Random, content: CodeContent) -> Draft | None:
    project = random.choice(content.with_role("guest"))
    author = random.choice([content.me, *(name for name, _ in project.teammates)])
    count = sum(commit.author == author and commit.branch == MAIN for commit in project.commits)
    if not count:
        return None
    return Draft(
        values={"author": author, "project": project.name},
        evaluation=evaluation(code_targets(), answers={"exact_match": str(count)}),
        milestones=(
            on_project(project),
            done.on_page("open the commits", page(project, "commits")),
            done.on_query(f'filter by author "{author}"', page(project, "commits"), author=author),
            done.answered("answer with the number", str(count)),
        ),
        moves=(open_project(project), Move("click", "commits"), Move("search", "author", author), Move("tell", argument=r"(\d+) found")),
    )


def tell_assignee(random: Random, content: CodeContent) -> Draft | None:
    project = random.choice(content.projects)
    issue = random.choice(project.issues)
    if not issue.assignee:
        return None
    return Draft(
        values={"title": issue.title},
        evaluation=evaluation(code_targets(), answers={"exact_match": issue.assignee}),
        milestones=(
            done.on_page("look for the issue", "__CODE__/search", page(project, "issues")),
            on_issue(project, issue),
            done.answered("answer with the name", issue.assignee),
        ),
        moves=(
            Move("search", "search", issue.title), Move("open", issue.title, hasty="takes_first_issue"),
            Move("tell", argument=r"assigned to ([a-z]+)"),
        ),
    )  # fmt: skip


def count_issues(random: Random, content: CodeContent) -> Draft | None:
    project, label = random.choice(content.with_role("guest")), random.choice(vocabulary.LABELS)
    count = sum(label in issue.labels for issue in project.open_issues())
    if count in (0, len(project.open_issues())):
        return None
    issues = page(project, "issues")
    return Draft(
        values={"label": label, "project": project.name},
        evaluation=evaluation(code_targets(), answers={"exact_match": str(count)}),
        milestones=(
            on_project(project),
            done.on_page("open the issues", issues),
            done.on_query(f'filter by label "{label}"', issues, label=label),
            done.answered("answer with the number", str(count)),
        ),
        moves=(
            open_project(project), Move("click", "issues"), Move("choose", "label", label, "forgets_option"), Move("click", "filter"),
            Move("tell", argument=r"(\d+) found"),
        ),
    )  # fmt: skip


def tell_latest_release(random: Random, content: CodeContent) -> Draft:
    project = random.choice(content.with_role("guest"))
    tag, _ = project.releases[-1]
    return Draft(
        values={"project": project.name},
        evaluation=evaluation(code_targets(), answers={"exact_match": tag}),
        milestones=(
            on_project(project),
            done.on_page("open the releases", page(project, "releases")),
            done.answered("answer with the release", tag),
        ),
        moves=(open_project(project), Move("click", "releases"), Move("tell", argument=r"(v\d+\.\d+)")),
    )


def show_issues(random: Random, content: CodeContent) -> Draft | None:
    project = random.choice(content.with_role("guest"))
    issue = random.choice(project.issues)
    if issue.state != "closed" or not issue.assignee:
        return None
    issues, query = page(project, "issues"), {"state": "closed", "assignee": issue.assignee}
    return Draft(
        values={"project": project.name, "assignee": issue.assignee},
        evaluation=evaluation(code_targets(), url=page_url(issues, **query)),
        milestones=(
            on_project(project),
            done.on_page("open the issues", issues),
            done.on_query("filter by state and assignee", issues, **query),
        ),
        moves=(
            open_project(project), Move("click", "issues"), Move("choose", "state", "closed", "forgets_option"),
            Move("type", "assignee", issue.assignee), Move("click", "filter", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("code",), intent, draw, held_out)
    for draw, held_out, intent in (
        (
            tell_commit_count, False,
            'How many commits of "{{author}}" are on the main branch of "{{project}}"? Answer with the number.',
        ),
        (tell_assignee, False, 'Who is assigned to the issue "{{title}}"? Answer with the name.'),
        (count_issues, False, 'How many open issues of "{{project}}" have the label "{{label}}"? Answer with the number.'),
        (tell_latest_release, True, 'What is the latest release of "{{project}}"? Answer with its tag.'),
        (show_issues, False, 'Show the closed issues of "{{project}}" that are assigned to "{{assignee}}".'),
    )
)  # fmt: skip
