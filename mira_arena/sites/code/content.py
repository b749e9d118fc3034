"""Initial content of the code host, generated from a seed."""

import dataclasses
import datetime
import functools
from collections.abc import Iterator
from random import Random

from mira_arena.sites.code import vocabulary

PEOPLE = 9
TEAMMATES = 4
ISSUES = 10
MERGE_REQUESTS = 3
RELEASES = 3
OWN_ROLES = ("owner", "owner", "maintainer", "developer", "reporter", "guest", "")
"""Roles of the signed-in user, one project each. '' is for a project of which they are not a member."""
MAIN = "main"
TITLES = tuple(
    f"{verb} the {state} {thing}" for verb in vocabulary.VERBS for state in vocabulary.STATES_OF_THINGS for thing in vocabulary.THINGS
)
"""Labels of issues and merge requests."""
PROJECT_NAMES = tuple(f"{kind} {noun}" for kind in vocabulary.PROJECT_KINDS for noun in vocabulary.PROJECT_NOUNS)


@dataclasses.dataclass(frozen=True)
class Developer:
    name: str
    full_name: str


@dataclasses.dataclass(frozen=True)
class Commit:
    sha: str
    branch: str
    author: str
    message: str
    day: str


@dataclasses.dataclass(frozen=True)
class File:
    """A file on a branch. A file of the main branch is on all branches that have no version of their own."""

    branch: str
    path: str
    lines: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ProjectMilestone:
    number: int
    title: str
    start: str
    due: str


@dataclasses.dataclass(frozen=True)
class Issue:
    number: int
    title: str
    description: str
    author: str
    day: str
    state: str
    """open or closed."""
    labels: tuple[str, ...]
    assignee: str
    milestone: str
    due: str
    comments: tuple[tuple[str, str], ...]
    """(author, text) of each comment."""


@dataclasses.dataclass(frozen=True)
class MergeRequest:
    """A request to merge a branch into the main branch."""

    number: int
    title: str
    author: str
    day: str
    source: str
    state: str
    """open or closed."""


@dataclasses.dataclass(frozen=True)
class Project:
    path: str
    """Path of group and project: `orchard/tide-clock`."""
    name: str
    group: str
    description: str
    topics: tuple[str, ...]
    visibility: str
    stars: int
    forks: int
    role: str
    """Role of the signed-in user. '' if they are not a member."""
    teammates: tuple[tuple[str, str], ...]
    """(name, role) of each other member."""
    files: tuple[File, ...]
    commits: tuple[Commit, ...]
    """Commits of all branches, oldest first."""
    branches: tuple[str, ...]
    issues: tuple[Issue, ...]
    milestones: tuple[ProjectMilestone, ...]
    merge_requests: tuple[MergeRequest, ...]
    pipelines: tuple[tuple[int, str, str], ...]
    """(number, branch, status) of each pipeline, oldest first."""
    releases: tuple[tuple[str, str], ...]
    """(tag, day) of each release, oldest first."""

    def open_issues(self) -> tuple[Issue, ...]:
        return tuple(issue for issue in self.issues if issue.state == "open")


@dataclasses.dataclass(frozen=True)
class Todo:
    """A request to the signed-in user about an issue."""

    number: int
    author: str
    text: str
    project: str
    issue: int


@dataclasses.dataclass(frozen=True)
class CodeContent:
    seed: int
    me: str
    """Name of the signed-in user."""
    day: str
    """Current day, as `2026-03-28`."""
    status: str
    bio: str
    people: tuple[Developer, ...]
    groups: tuple[tuple[str, bool], ...]
    """(name, whether the signed-in user owns it) of each group."""
    projects: tuple[Project, ...]
    todos: tuple[Todo, ...]

    def with_role(self, least: str) -> list[Project]:
        """Projects in which the signed-in user has at least that role."""
        wanted = vocabulary.ROLES[vocabulary.ROLES.index(least) :]
        return [project for project in self.projects if project.role in wanted]

    @functools.cached_property
    def titles(self) -> frozenset[str]:
        """Titles of all issues and merge requests."""
        return frozenset(entry.title for project in self.projects for entry in (*project.issues, *project.merge_requests))


@functools.lru_cache(maxsize=128)
def make_content(seed: int) -> CodeContent:
    """Creates the code host of a seed. Deterministic."""
    random = Random(f"code {seed}")
    people = tuple(
        Developer(first, f"{first} {random.choice(vocabulary.LAST_NAMES)}") for first in random.sample(vocabulary.FIRST_NAMES, PEOPLE)
    )
    me, *others = [person.name for person in people]
    day = datetime.date(2026, 1, 1) + datetime.timedelta(days=random.randrange(365))
    groups = random.sample(vocabulary.GROUPS, 3)
    drawn = iter(random.sample(TITLES, len(OWN_ROLES) * (ISSUES + MERGE_REQUESTS)))
    roles = random.sample(OWN_ROLES, len(OWN_ROLES))
    chosen = random.sample(PROJECT_NAMES, len(roles))
    projects = tuple(
        _project(random, name, role, random.choice(groups), me, others, day, drawn) for name, role in zip(chosen, roles, strict=True)
    )
    return CodeContent(
        seed=seed,
        me=me,
        day=day.isoformat(),
        status=random.choice(vocabulary.STATUSES),
        bio=_likes(random),
        people=people,
        groups=tuple((group, place < 2) for place, group in enumerate(groups)),
        projects=projects,
        todos=_todos(random, projects, others),
    )


def _likes(random: Random) -> str:
    return "likes {} and {}".format(*random.sample(vocabulary.TOPICS, 2))


def _project(
    random: Random, name: str, role: str, group: str, me: str, people: list[str], day: datetime.date, titles: Iterator[str]
) -> Project:
    others = random.sample(people, TEAMMATES)
    # Every project needs an owner, and a member who may be removed.
    theirs = ["owner", "reporter", *(random.choice(vocabulary.ROLES[:-1]) for _ in others[2:])]
    names = [me] * bool(role) + others
    branches = (MAIN, *random.sample([f"{verb}-{thing}" for verb in vocabulary.VERBS for thing in vocabulary.THINGS], MERGE_REQUESTS))
    topics = tuple(random.sample(vocabulary.TOPICS, 2))
    description = f"a {random.choice(vocabulary.ADJECTIVES)} {name.split()[1]} for {topics[0]}"
    main = _files(random, name, description, others[0])
    milestones = _milestones(random, day)
    first_pipeline = random.randrange(20, 90)
    return Project(
        path=f"{group}/{name.replace(' ', '-')}",
        name=name,
        group=group,
        description=description,
        topics=topics,
        visibility=random.choice(vocabulary.VISIBILITIES) if role else "public",
        stars=random.randrange(1, 400),
        forks=random.randrange(1, 60),
        role=role,
        teammates=tuple(zip(others, theirs, strict=True)),
        files=(*main, *(_changed(random, branch, random.choice(main[1:])) for branch in branches[1:])),
        commits=_commits(random, names, branches, day),
        branches=branches,
        issues=tuple(_issue(random, number + 1, next(titles), names, milestones, day) for number in range(ISSUES)),
        milestones=milestones,
        merge_requests=tuple(
            MergeRequest(
                number=number,
                title=next(titles),
                author=random.choice(others),
                day=_before(random, day),
                source=branch,
                state="closed" if number == 1 else "open",
            )
            for number, branch in enumerate(branches[1:], 1)
        ),
        pipelines=tuple(
            (number, random.choice(branches), random.choice(vocabulary.PIPELINES)) for number in range(first_pipeline, first_pipeline + 5)
        ),
        releases=_releases(random, day),
    )


def _before(random: Random, day: datetime.date, days: int = 60) -> str:
    return (day - datetime.timedelta(days=random.randrange(1, days))).isoformat()


def _files(random: Random, name: str, description: str, contact: str) -> tuple[File, ...]:
    """Files of the main branch: the readme, a config file and two others."""
    settings = [f"{key} = {random.choice(vocabulary.SETTINGS[key])}" for key in random.sample(list(vocabulary.SETTINGS), 4)]
    files = [("readme.md", (name, description, f"ask {contact} for help")), (random.choice(vocabulary.CONFIG_FILES), tuple(settings))]
    files += [(path, tuple(random.sample(vocabulary.OTHER_FILES[path], 3))) for path in random.sample(list(vocabulary.OTHER_FILES), 2)]
    return tuple(File(MAIN, path, lines) for path, lines in files)


def _changed(random: Random, branch: str, file: File) -> File:
    """The version of the file on `branch`, with one line added."""
    return File(branch, file.path, (*file.lines, f"{random.choice(vocabulary.VERBS)} the {random.choice(vocabulary.THINGS)}"))


def _milestones(random: Random, day: datetime.date) -> tuple[ProjectMilestone, ...]:
    titles = random.sample([f"{kind} {noun}" for kind in vocabulary.MILESTONE_KINDS for noun in vocabulary.MILESTONE_NOUNS], 2)
    made = []
    for number, title in enumerate(titles, 1):
        start = day + datetime.timedelta(days=random.randrange(-20, 20))
        made.append(
            ProjectMilestone(number, title, start.isoformat(), (start + datetime.timedelta(days=random.randrange(25, 60))).isoformat())
        )
    return tuple(made)


def _commits(random: Random, people: list[str], branches: tuple[str, ...], day: datetime.date) -> tuple[Commit, ...]:
    places = [MAIN] * random.randrange(8, 13) + [branch for branch in branches[1:] for _ in range(random.choice((1, 1, 2)))]
    days = sorted(_before(random, day) for _ in places)
    return tuple(
        Commit(f"{random.randrange(16**6):06x}", branch, random.choice(people), random.choice(vocabulary.COMMITS), when)
        for branch, when in zip(places, days, strict=True)
    )


def _issue(
    random: Random, number: int, title: str, people: list[str], milestones: tuple[ProjectMilestone, ...], day: datetime.date
) -> Issue:
    due = (day + datetime.timedelta(days=random.randrange(3, 60))).isoformat()
    return Issue(
        number=number,
        title=title,
        description=random.choice(vocabulary.DESCRIPTIONS),
        author=random.choice(people),
        day=_before(random, day),
        state="open" if random.random() < 0.75 else "closed",
        labels=tuple(random.sample(vocabulary.LABELS, random.choice((0, 1, 1, 2)))),
        assignee=random.choice(["", *people]),
        milestone=random.choice(["", *(milestone.title for milestone in milestones)]),
        due=random.choice(("", due)),
        comments=tuple((random.choice(people), random.choice(vocabulary.COMMENTS)) for _ in range(random.randrange(3))),
    )


def _releases(random: Random, day: datetime.date) -> tuple[tuple[str, str], ...]:
    major, days = random.randrange(1, 6), sorted(_before(random, day, 300) for _ in range(RELEASES))
    minors = sorted(random.sample(range(10), RELEASES))
    return tuple((f"v{major}.{minor}", when) for minor, when in zip(minors, days, strict=True))


def _todos(random: Random, projects: tuple[Project, ...], people: list[str]) -> tuple[Todo, ...]:
    """To-dos about open issues, in projects in which the signed-in user may close them."""
    issues = [(p.path, issue.number) for p in projects if p.role not in ("", "guest") for issue in p.open_issues()]
    texts = ("asked you about", "mentioned you in", "wants your help with")
    return tuple(
        Todo(number, random.choice(people), random.choice(texts), *issue) for number, issue in enumerate(random.sample(issues, 4), 1)
    )
