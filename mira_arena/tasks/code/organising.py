"""Tasks with issues, milestones, members, projects and the user's profile."""

from random import Random

from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.content import MAIN, PROJECT_NAMES, CodeContent, Issue, Project
from mira_arena.tasks import milestones as done
from mira_arena.tasks.code.draws import draw_day, draw_title, people_below, pick_other
from mira_arena.tasks.code.milestones import changed, finished, on_issue, on_project, page
from mira_arena.tasks.code.moves import add_label, comment, invite, open_issue, open_project
from mira_arena.tasks.code.targets import code_targets, next_comment, of_issue, with_label
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template


def _people(content: CodeContent, project: Project) -> list[str]:
    return [content.me, *(name for name, _ in project.teammates)]


def open_an_issue(random: Random, content: CodeContent) -> Draft:
    project, label = random.choice(content.with_role("reporter")), random.choice(vocabulary.LABELS)
    title, assignee, due = draw_title(random, content), random.choice(_people(content, project)), draw_day(random, content)
    milestone, number = random.choice(project.milestones).title, len(project.issues) + 1
    changes = of_issue(project, number, title=title, state="open", labels=label, assignee=assignee, milestone=milestone, due=due)
    return Draft(
        values={
            "title": title, "project": project.name, "label": label, "assignee": assignee, "milestone": milestone, "due": due,
        },
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            on_project(project),
            done.on_page("open the issues", page(project, "issues")),
            done.on_page("open the form", page(project, "issues/new")),
            finished(f'create "{title}"', changes),
        ),
        moves=(
            open_project(project), Move("click", "issues"), Move("click", "new issue"), Move("type", "title", title),
            Move("choose", "label", label, "forgets_option"), Move("type", "assignee", assignee),
            Move("choose", "milestone", milestone, "forgets_option"), Move("type", "due date", due),
            Move("click", "create issue", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def triage_issue(random: Random, content: CodeContent) -> Draft | None:
    project = random.choice(content.with_role("reporter"))
    issue, said = random.choice(project.issues), random.choice(vocabulary.COMMENTS)
    if issue.state != "open":
        return None
    assignee = pick_other(random, _people(content, project), issue.assignee)
    label, due = pick_other(random, vocabulary.LABELS, *issue.labels), draw_day(random, content)
    if due == issue.due:
        return None
    planned = of_issue(project, issue.number, assignee=assignee, due=due)
    labelled = of_issue(project, issue.number, labels=with_label(issue, label))
    changes = planned | labelled | of_issue(project, issue.number, **{next_comment(issue): said})
    return Draft(
        values={"title": issue.title, "project": project.name, "assignee": assignee, "due": due, "label": label, "comment": said},
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            on_project(project),
            on_issue(project, issue),
            changed("save assignee and due date", planned),
            changed(f'add label "{label}"', labelled),
            finished(f'comment "{said}"', changes),
        ),
        moves=(
            open_project(project), *open_issue(issue), Move("type", "assignee", assignee), Move("type", "due date", due),
            Move("click", "save changes"), *add_label(label), *comment(said), EXIT,
        ),
    )  # fmt: skip


def answer_todo(random: Random, content: CodeContent) -> Draft:
    todo, said = random.choice(content.todos), random.choice(vocabulary.COMMENTS)
    project = next(project for project in content.projects if project.path == todo.project)
    issue = project.issues[todo.issue - 1]
    commented = of_issue(project, issue.number, **{next_comment(issue): said})
    closed = of_issue(project, issue.number, state="closed")
    changes = commented | closed | {f"to-do {todo.number} done": "1"}
    return Draft(
        values={"title": issue.title, "comment": said},
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            done.on_page("open the to-dos", "__CODE__/to-dos"),
            on_issue(project, issue),
            changed(f'comment "{said}"', commented),
            changed("close the issue", closed),
            finished("mark the to-do as done", changes),
        ),
        moves=(
            Move("click", "to-dos"), Move("open", issue.title, hasty="takes_first_issue"), *comment(said), Move("click", "close issue"),
            Move("click", "to-dos"), Move("click", f"mark {issue.title} as done", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def plan_milestone(random: Random, content: CodeContent) -> Draft | None:
    project, label = random.choice(content.with_role("developer")), random.choice(vocabulary.LABELS)
    issues = [issue for issue in project.open_issues() if label not in issue.labels]
    if len(issues) < 3:
        return None
    issues = random.sample(issues, 3)
    titles = [f"{kind} {noun}" for kind in vocabulary.MILESTONE_KINDS for noun in vocabulary.MILESTONE_NOUNS]
    title = pick_other(random, titles, *(milestone.title for milestone in project.milestones))
    start, due = draw_day(random, content, 1, 15), draw_day(random, content, 20, 60)
    name = f"{project.path} milestone {len(project.milestones) + 1}"
    made = {f"{name} title": title, f"{name} start": start, f"{name} due": due, f"{name} state": "open"}
    plans = [of_issue(project, issue.number, milestone=title, labels=with_label(issue, label)) for issue in issues]
    steps, moves, changes = [], [], made
    for issue, plan in zip(issues, plans, strict=True):
        changes = changes | plan
        steps.append(changed(f'put "{issue.title}" in it, with the label', plan))
        moves += [
            *open_issue(issue), Move("choose", "milestone", title, "forgets_option"), Move("click", "save changes"), *add_label(label),
        ]  # fmt: skip
    return Draft(
        values={
            "project": project.name, "milestone": title, "start": start, "due": due, "label": label,
            **dict(zip(("first", "second", "third"), (issue.title for issue in issues), strict=True)),
        },
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            done.on_page("open the form of a milestone", page(project, "milestones/new")),
            changed(f'create milestone "{title}"', made),
            *steps,
            finished("have done that and no more", changes),
        ),
        moves=(
            open_project(project), Move("click", "milestones"), Move("click", "new milestone"), Move("type", "title", title),
            Move("type", "start date", start), Move("type", "due date", due), Move("click", "create milestone"), *moves, EXIT,
        ),
    )  # fmt: skip


def move_to_milestone(random: Random, content: CodeContent) -> Draft | None:
    project = random.choice(content.with_role("developer"))
    old, new = random.sample(project.milestones, 2)
    issues = [issue for issue in project.open_issues() if issue.milestone == old.title]
    if len(issues) != 2:
        return None
    moved = [of_issue(project, issue.number, milestone=new.title) for issue in issues]
    changes = moved[0] | moved[1] | {f"{project.path} milestone {old.number} state": "closed"}
    look = (Move("click", "milestones"), Move("open", old.title))
    moves: list[Move] = []
    for issue in issues:
        moves += [
            *look, Move("open", issue.title), Move("choose", "milestone", new.title, "forgets_option"), Move("click", "save changes"),
        ]  # fmt: skip
    return Draft(
        values={"project": project.name, "old": old.title, "new": new.title},
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            done.on_page("open the milestones", page(project, "milestones")),
            done.on_page(f'open "{old.title}"', page(project, f"milestones/{old.number}")),
            changed(f'move "{issues[0].title}"', moved[0]),
            changed(f'move "{issues[1].title}"', moved[1]),
            finished(f'close "{old.title}"', changes),
        ),
        moves=(open_project(project), *moves, *look, Move("click", "close milestone", habit="stops_early"), EXIT),
    )


def hand_over_issues(random: Random, content: CodeContent) -> Draft | None:
    """Hands over the issues of a person with three open issues."""

    def assigned(project: Project, name: str) -> list[Issue]:
        return [issue for issue in project.open_issues() if issue.assignee == name]

    leaving = [(p, name) for p in content.with_role("maintainer") for name in people_below(p) if len(assigned(p, name)) == 3]
    if not leaving:
        return None
    project, leaver = random.choice(leaving)
    successor = pick_other(random, _people(content, project), leaver)
    moves, steps, changes = [], [], {f"{project.path} member {leaver} role": ""}
    for issue in assigned(project, leaver):
        given = of_issue(project, issue.number, assignee=successor)
        changes |= given
        steps.append(changed(f'assign "{issue.title}" to "{successor}"', given))
        moves += [
            Move("click", "issues"), Move("type", "assignee", leaver), Move("click", "filter"), Move("open", issue.title),
            Move("type", "assignee", successor), Move("click", "save changes"),
        ]  # fmt: skip
    return Draft(
        values={"project": project.name, "leaver": leaver, "successor": successor},
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            done.on_query(f'filter the issues by assignee "{leaver}"', page(project, "issues"), assignee=leaver),
            *steps,
            done.on_page("open the members", page(project, "members")),
            finished(f'remove "{leaver}"', changes),
        ),
        moves=(open_project(project), *moves, Move("click", "members"), Move("click", f"remove {leaver}", habit="stops_early"), EXIT),
    )


def manage_members(random: Random, content: CodeContent) -> Draft | None:
    project = random.choice(content.with_role("maintainer"))
    known, below = _people(content, project), people_below(project)
    if len(below) < 2:
        return None
    newcomer = random.choice([person for person in content.people if person.name not in known])
    role, (promoted, removed) = random.choice(vocabulary.ROLES[1:-1]), random.sample(below, 2)
    new_role = pick_other(random, vocabulary.ROLES[:-1], dict(project.teammates)[promoted])

    def member(name: str, role: str) -> dict[str, str]:
        return {f"{project.path} member {name} role": role}

    invited, changes = member(newcomer.name, role), member(newcomer.name, role) | member(promoted, new_role)
    return Draft(
        values={
            "project": project.name, "newcomer": newcomer.full_name, "role": role, "promoted": promoted, "new_role": new_role,
            "removed": removed,
        },
        evaluation=evaluation(code_targets(changes | member(removed, ""))),
        milestones=(
            done.on_page("open the members", page(project, "members")),
            changed(f'invite "{newcomer.full_name}" as "{role}"', invited),
            changed(f'make "{promoted}" a "{new_role}"', changes),
            finished(f'remove "{removed}"', changes | member(removed, "")),
        ),
        moves=(
            open_project(project), Move("click", "members"), *invite(newcomer.full_name, role),
            Move("choose", f"role of {promoted}", new_role, "forgets_option"), Move("click", f"save role of {promoted}"),
            Move("click", f"remove {removed}", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def start_project(random: Random, content: CodeContent) -> Draft:
    name = pick_other(random, PROJECT_NAMES, *(project.name for project in content.projects))
    topic, label, title = random.choice(vocabulary.TOPICS), random.choice(vocabulary.LABELS), draw_title(random, content)
    description = f"a {random.choice(vocabulary.ADJECTIVES)} {name.split()[1]} for {topic}"
    # The form preselects the first of the user's own groups.
    group = sorted(group for group, own in content.groups if own)[1]
    first, second = random.sample([person.name for person in content.people if person.name != content.me], 2)
    roles = random.sample(vocabulary.ROLES[1:-1], 2)
    path = f"{group}/{name.replace(' ', '-')}"
    made = {
        "description": description, "visibility": vocabulary.VISIBILITIES[0], f"member {content.me} role": "owner",
        f"branch {MAIN} name": MAIN, f"file {MAIN} readme.md text": name, "commit 1 message": "initial commit",
    }  # fmt: skip
    issue = {"issue 1 title": title, "issue 1 state": "open", "issue 1 labels": label, "issue 1 assignee": first}
    made, issue = ({f"{path} {key}": value for key, value in changes.items()} for changes in (made, issue))
    invited = [{f"{path} member {person} role": role} for person, role in zip((first, second), roles, strict=True)]
    return Draft(
        values={
            "name": name, "group": group, "description": description, "first": first, "first_role": roles[0], "second": second,
            "second_role": roles[1], "title": title, "label": label,
        },
        evaluation=evaluation(code_targets(made | invited[0] | invited[1] | issue)),
        milestones=(
            done.on_page("open the form of a project", "__CODE__/projects/new"),
            changed(f'create "{name}"', made),
            changed(f'invite "{first}"', invited[0]),
            changed(f'invite "{second}"', invited[1]),
            finished(f'create issue "{title}"', made | invited[0] | invited[1] | issue),
        ),
        moves=(
            Move("click", "new ..."), Move("click", "new project"), Move("type", "project name", name),
            Move("choose", "group", group, "forgets_option"), Move("type", "description", description),
            Move("choose", "add a readme", "yes", "forgets_option"), Move("click", "create project"),
            Move("click", "members"), *invite(first, roles[0]), *invite(second, roles[1]),
            Move("click", "issues"), Move("click", "new issue"), Move("type", "title", title),
            Move("choose", "label", label, "forgets_option"), Move("type", "assignee", first),
            Move("click", "create issue", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def update_profile(random: Random, content: CodeContent) -> Draft:
    status = pick_other(random, vocabulary.STATUSES, content.status)
    bio = pick_other(
        random, [f"likes {one} and {other}" for one in vocabulary.TOPICS for other in vocabulary.TOPICS if one != other], content.bio
    )
    changes = {"profile status": status, "profile bio": bio}
    return Draft(
        values={"status": status, "bio": bio},
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            done.on_page("open the profile", f"__CODE__/people/{content.me}"),
            done.on_page("open the form", "__CODE__/profile"),
            finished("save the profile", changes),
        ),
        moves=(
            Move("click", "profile"), Move("click", "edit profile"), Move("type", "status", status), Move("type", "bio", bio),
            Move("click", "save profile", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("code",), intent, draw, held_out)
    for draw, held_out, intent in (
        (
            open_an_issue, False,
            'Open an issue "{{title}}" in "{{project}}" with label "{{label}}", assigned to "{{assignee}}", in milestone "{{milestone}}" '
            "and due on {{due}}.",
        ),
        (
            triage_issue, False,
            'Assign the issue "{{title}}" of "{{project}}" to "{{assignee}}" with due date {{due}}, add the label "{{label}}" '
            'and comment "{{comment}}".',
        ),
        (
            answer_todo, False,
            'There is a to-do about "{{title}}": comment "{{comment}}" on that issue, close it, and mark the to-do as done.',
        ),
        (
            plan_milestone, False,
            'In "{{project}}", create milestone "{{milestone}}" from {{start}} to {{due}}, put the issues "{{first}}", "{{second}}" and '
            '"{{third}}" in it, and add the label "{{label}}" to each.',
        ),
        (
            move_to_milestone, True,
            'In "{{project}}", move the open issues of milestone "{{old}}" to "{{new}}", then close "{{old}}".',
        ),
        (
            hand_over_issues, False,
            'In "{{project}}", assign every open issue of "{{leaver}}" to "{{successor}}", then remove "{{leaver}}" from the members.',
        ),
        (
            manage_members, False,
            'In "{{project}}", invite "{{newcomer}}" as {{role}}, change the role of "{{promoted}}" to {{new_role}} '
            'and remove "{{removed}}".',
        ),
        (
            start_project, False,
            'Create the project "{{name}}" in group "{{group}}" with description "{{description}}" and a readme, invite "{{first}}" as '
            '{{first_role}} and "{{second}}" as {{second_role}}, and open an issue "{{title}}" with label "{{label}}" assigned to '
            '"{{first}}".',
        ),
        (update_profile, False, 'Set your status to "{{status}}" and your bio to "{{bio}}".'),
    )
)  # fmt: skip
