"""Tasks with files, branches and merge requests."""

from random import Random

from mira_arena.sites.code import vocabulary
from mira_arena.sites.code.content import MAIN, CodeContent, File, MergeRequest, Project
from mira_arena.tasks import milestones as done
from mira_arena.tasks.code.draws import draw_setting, draw_title, pick_other
from mira_arena.tasks.code.milestones import changed, finished, on_project, page
from mira_arena.tasks.code.moves import comment, open_project
from mira_arena.tasks.code.targets import code_targets, written
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template


def _edit(file: File, place: int, message: str) -> tuple[Move, ...]:
    """Starts from the list of files of a branch."""
    return (
        Move("click", file.path), Move("click", "edit file"), Move("type", f"line {place}", file.lines[place - 1]),
        Move("type", "commit message", message), Move("click", "commit changes", habit="stops_early"),
    )  # fmt: skip


def edit_file(random: Random, content: CodeContent) -> Draft:
    project, message = random.choice(content.with_role("maintainer")), random.choice(vocabulary.COMMITS)
    file, place, key = draw_setting(random, project)
    changes = written(project, file, message)
    return Draft(
        values={
            "key": key, "file": file.path, "project": project.name, "value": file.lines[place - 1].split(" = ")[1], "message": message,
        },
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            on_project(project),
            done.on_page(f'open "{file.path}"', page(project, f"blob/{MAIN}/{file.path}")),
            done.on_page(f'edit "{file.path}"', page(project, f"edit/{MAIN}/{file.path}")),
            finished("commit the change", changes),
        ),
        moves=(open_project(project), *_edit(file, place, message), EXIT),
    )  # fmt: skip


def propose_change(random: Random, content: CodeContent) -> Draft:
    project, message = random.choice(content.with_role("developer")), random.choice(vocabulary.COMMITS)
    branch = pick_other(random, [f"{verb}-{thing}" for verb in vocabulary.VERBS for thing in vocabulary.THINGS], *project.branches)
    file, place, key = draw_setting(random, project, branch)
    title, number = draw_title(random, content), len(project.merge_requests) + 1
    made = {f"{project.path} branch {branch} name": branch}
    commit = written(project, file, message)
    request = {f"{project.path} merge request {number} {name}": value for name, value in
               (("title", title), ("source", branch), ("state", "open"))}  # fmt: skip
    return Draft(
        values={
            "project": project.name, "branch": branch, "key": key, "file": file.path, "value": file.lines[place - 1].split(" = ")[1],
            "message": message, "title": title,
        },
        evaluation=evaluation(code_targets(made | commit | request)),
        milestones=(
            done.on_page("open the branches", page(project, "branches")),
            changed(f'create branch "{branch}"', made),
            changed(f'commit the change of "{file.path}"', made | commit),
            done.on_page("open the form of a merge request", page(project, "merge_requests/new")),
            finished(f'create merge request "{title}"', made | commit | request),
        ),
        moves=(
            open_project(project), Move("click", "branches"), Move("type", "branch name", branch), Move("click", "create branch"),
            *_edit(file, place, message), Move("click", "merge requests"), Move("click", "new merge request"),
            Move("choose", "source branch", branch), Move("type", "title", title),
            Move("click", "create merge request", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def _merged(project: Project, request: MergeRequest) -> dict[str, str]:
    """Changes made by a merge."""
    changes = {f"{project.path} merge request {request.number} state": "merged"}
    for file in project.files:
        if file.branch == request.source:
            changes |= written(project, File(MAIN, file.path, file.lines), f"merge {request.source} into {MAIN}")
            changes[f"{project.path} file {request.source} {file.path} text"] = ""
    return changes


def _open_request(random: Random, project: Project) -> MergeRequest:
    return random.choice([request for request in project.merge_requests if request.state == "open"])


def _on_request(project: Project, request: MergeRequest) -> done.Milestone:
    return done.on_page(f'open "{request.title}"', page(project, f"merge_requests/{request.number}"))


def accept_merge_request(random: Random, content: CodeContent) -> Draft:
    project, said = random.choice(content.with_role("maintainer")), random.choice(vocabulary.COMMENTS)
    request = _open_request(random, project)
    name = f"{project.path} merge request {request.number}"
    approved, commented = {f"{name} approved": "1"}, {f"{name} comment 1 text": said}
    changes = _merged(project, request) | approved | commented
    return Draft(
        values={"title": request.title, "project": project.name, "comment": said},
        evaluation=evaluation(code_targets(changes)),
        milestones=(
            done.on_page("open the merge requests", page(project, "merge_requests")),
            _on_request(project, request),
            changed("approve it", approved),
            changed(f'comment "{said}"', commented),
            finished("merge it", changes),
        ),
        moves=(
            open_project(project), Move("click", "merge requests"), Move("open", request.title), Move("click", "approve"),
            *comment(said), Move("click", "merge", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def merge_if_allowed(random: Random, content: CodeContent) -> Draft:
    """In half of the instances the user's role is not sufficient. Then the correct result is to report this."""
    allowed = random.random() < 0.5
    maintained = content.with_role("maintainer")
    project = random.choice(maintained if allowed else [other for other in content.with_role("guest") if other not in maintained])
    request = _open_request(random, project)
    changes = _merged(project, request) if allowed else {}
    return Draft(
        values={"title": request.title, "project": project.name},
        evaluation=evaluation(code_targets(changes), answers=None if allowed else {"fuzzy_match": "N/A"}),
        milestones=(
            on_project(project),
            done.on_page("open the merge requests", page(project, "merge_requests")),
            _on_request(project, request),
            finished("merge it", changes) if allowed else done.answered('answer "N/A"', "N/A"),
        ),
        moves=(
            open_project(project), Move("click", "merge requests"), Move("open", request.title),
            Move("open", "merge", habit="stops_early", missing="N/A"), EXIT,
        ),
    )  # fmt: skip


_SET = 'set "{{key}}" to "{{value}}" in "{{file}}" with the commit message "{{message}}"'

TEMPLATES = tuple(
    Template(draw.__name__, ("code",), intent, draw)
    for draw, intent in (
        (edit_file, 'On the main branch of "{{project}}", ' + _SET + "."),
        (
            propose_change,
            'In "{{project}}", create the branch "{{branch}}", '
            + _SET
            + ' there, and open a merge request of that branch titled "{{title}}".',
        ),
        (accept_merge_request, 'Approve the merge request "{{title}}" of "{{project}}", comment "{{comment}}" on it, and merge it.'),
        (merge_if_allowed, 'Merge the merge request "{{title}}" of "{{project}}".'),
    )
)
