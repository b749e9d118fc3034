"""Initial content of the forum, generated from a seed."""

import dataclasses
import functools
import itertools
from random import Random

from mira_arena.sites.forum import vocabulary

COMMUNITIES = 6
MODERATED = 2
"""Number of communities that the member moderates, which are the first ones. The member subscribes to these and to equally many
others."""
THREADS_PER_COMMUNITY = 7
OWN_THREADS = 3
MEMBERS = 13
CONVERSATIONS = 8
REPORTS = 5
"""Open reports in each community that the member moderates. Two have the same reason; the reasons of the others differ."""


@dataclasses.dataclass(frozen=True)
class Member:
    name: str
    points: int
    joined: str


@dataclasses.dataclass(frozen=True)
class Community:
    name: str
    description: str
    rules: tuple[str, ...]
    flairs: tuple[str, ...]
    moderators: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comment:
    id: int
    author: str
    """No member comments twice on the same thread, or on their own thread."""
    text: str
    score: int
    parent: int | None
    """Id of the comment that it replies to."""


@dataclasses.dataclass(frozen=True)
class Thread:
    id: int
    community: str
    author: str
    title: str
    """Titles are unique."""
    text: str
    link: str
    score: int
    hours: int
    """Hours since it was posted."""
    flair: str
    sticky: bool
    comments: tuple[Comment, ...]

    def in_order(self, below: int | None = None) -> list[Comment]:
        """Comments in page order: each before its replies, and replies by decreasing score."""
        found = []
        for comment in sorted(self.comments, key=lambda comment: -comment.score):
            if comment.parent == below:
                found += [comment, *self.in_order(comment.id)]
        return found


@dataclasses.dataclass(frozen=True)
class Report:
    """A report of a thread, or of a comment on it."""

    number: int
    thread: Thread
    comment: Comment | None
    reporter: str
    reason: str

    @property
    def author(self) -> str:
        """Author of the reported thread or comment."""
        return self.comment.author if self.comment else self.thread.author


@dataclasses.dataclass(frozen=True)
class Message:
    other: str
    """The other participant of the conversation."""
    incoming: bool
    text: str


@dataclasses.dataclass(frozen=True)
class ForumContent:
    seed: int
    member: str
    """Name of the signed-in member."""
    password: str
    members: tuple[Member, ...]
    communities: tuple[Community, ...]
    threads: tuple[Thread, ...]
    """Threads, oldest first."""
    saved: tuple[str, ...]
    """Titles of saved threads."""
    messages: tuple[Message, ...]
    """Messages, oldest first."""
    reports: tuple[Report, ...]

    @functools.cached_property
    def by_title(self) -> dict[str, Thread]:
        return {thread.title: thread for thread in self.threads}

    @functools.cached_property
    def by_name(self) -> dict[str, Community]:
        return {community.name: community for community in self.communities}

    @property
    def moderated(self) -> tuple[Community, ...]:
        return self.communities[:MODERATED]

    @property
    def subscribed(self) -> tuple[Community, ...]:
        return self.communities[: 2 * MODERATED]

    @property
    def own_threads(self) -> tuple[Thread, ...]:
        return tuple(thread for thread in self.threads if thread.author == self.member)

    @property
    def correspondents(self) -> tuple[str, ...]:
        """Members with whom the signed-in member has exchanged messages."""
        return tuple(dict.fromkeys(message.other for message in self.messages))

    def threads_in(self, community: str) -> list[Thread]:
        return [thread for thread in self.threads if thread.community == community]

    def newest(self, community: str) -> Thread:
        return self.threads_in(community)[-1]

    def top(self, community: str) -> list[Thread]:
        """Threads of the community, by decreasing score."""
        return sorted(self.threads_in(community), key=lambda thread: -thread.score)


@functools.lru_cache(maxsize=128)
def make_content(seed: int) -> ForumContent:
    """Creates the forum of a seed. Deterministic."""
    random = Random(f"forum {seed}")
    names = random.sample([f"{mood} {animal}" for mood in vocabulary.MOODS for animal in vocabulary.ANIMALS], MEMBERS)
    member, others = names[0], names[1:]
    points = random.sample(range(20, 1000), MEMBERS)
    communities = tuple(
        _community(random, name, member if place < MODERATED else "", others)
        for place, name in enumerate(random.sample(list(vocabulary.TOPICS), COMMUNITIES))
    )
    threads = _threads(random, communities, member, others)
    return ForumContent(
        seed=seed,
        member=member,
        password=f"{random.choice(vocabulary.PASSWORDS)} {random.randrange(10, 100)}",
        members=tuple(Member(name, earned, random.choice(vocabulary.MONTHS)) for name, earned in zip(names, points, strict=True)),
        communities=communities,
        threads=threads,
        saved=tuple(thread.title for thread in random.sample([thread for thread in threads if thread.author != member], 2)),
        messages=_messages(random, random.sample(others, CONVERSATIONS)),
        reports=_reports(random, communities[:MODERATED], threads, member, others),
    )


def new_title(random: Random, community: str) -> str:
    """Draws a title that fits the community."""
    return random.choice(vocabulary.TITLES).format(
        adjective=random.choice(vocabulary.ADJECTIVES), noun=random.choice(vocabulary.TOPICS[community])
    )


def new_text(random: Random) -> str:
    """Draws the text of a thread."""
    return f"{random.choice(vocabulary.OPENINGS)}, {random.choice(vocabulary.QUESTIONS)}"


def new_description(random: Random, community: str) -> str:
    first, second = random.sample(vocabulary.TOPICS[community], 2)
    return random.choice(vocabulary.DESCRIPTIONS).format(first=first, second=second)


def _community(random: Random, name: str, moderator: str, others: list[str]) -> Community:
    """A community with two moderators: `moderator` and another, or two others."""
    return Community(
        name=name,
        description=new_description(random, name),
        rules=tuple(random.sample(vocabulary.RULES, 3)),
        flairs=tuple(random.sample(vocabulary.FLAIRS, 3)),
        moderators=(moderator, random.choice(others)) if moderator else tuple(random.sample(others, 2)),
    )


def _threads(random: Random, communities: tuple[Community, ...], member: str, others: list[str]) -> tuple[Thread, ...]:
    """Draws threads. Adjectives and nouns are few and recur, so that a search also returns neighbours of the wanted thread.

    Scores are three apart, so a vote never changes the order.
    """
    adjectives = random.sample(vocabulary.ADJECTIVES, 6)
    places = []
    for community in communities:
        nouns = random.sample(vocabulary.TOPICS[community.name], 3)
        made = [text.format(adjective=adjective, noun=noun) for text in vocabulary.TITLES for adjective in adjectives for noun in nouns]
        pinned = random.randrange(THREADS_PER_COMMUNITY)
        places += [(community, title, place == pinned) for place, title in enumerate(random.sample(made, THREADS_PER_COMMUNITY))]
    own = random.sample([place for place, (_, _, sticky) in enumerate(places) if not sticky], OWN_THREADS)
    scores = random.sample(range(2, 160), len(places))
    ages = random.sample(range(2, 400), len(places))
    ids, comment_ids = itertools.count(random.randrange(100, 900)), itertools.count(random.randrange(1000, 9000))
    threads = []
    for place in sorted(range(len(places)), key=lambda place: -ages[place]):
        community, title, sticky = places[place]
        author = member if place in own else random.choice(others)
        threads.append(
            Thread(
                id=next(ids),
                community=community.name,
                author=author,
                title=title,
                text=new_text(random),
                link=f"https://{random.choice(vocabulary.LINKS)}.example/{title.split()[-1]}" if random.random() < 0.2 else "",
                score=3 * scores[place],
                hours=ages[place],
                flair=random.choice(("", *community.flairs)) if place not in own else "",
                sticky=sticky,
                comments=_comments(random, comment_ids, [name for name in others if name != author]),
            )
        )
    return tuple(threads)


def _comments(random: Random, ids: "itertools.count[int]", people: list[str]) -> tuple[Comment, ...]:
    count = random.randrange(2, 8)
    comments: list[Comment] = []
    for author, score in zip(random.sample(people, count), random.sample(range(-9, 40), count), strict=True):
        parent = random.choice(comments).id if comments and random.random() < 0.5 else None
        comments.append(Comment(next(ids), author, random.choice(vocabulary.COMMENTS), score, parent))
    return tuple(comments)


def _messages(random: Random, people: list[str]) -> tuple[Message, ...]:
    """Draws conversations. Some start with a message by the member; each ends with one by the other person."""
    messages = []
    for other in people:
        first, second = random.sample(vocabulary.MESSAGES, 2)
        if random.random() < 0.4:
            messages.append(Message(other, False, first))
        messages.append(Message(other, True, second))
    return tuple(messages)


def _reports(
    random: Random, communities: tuple[Community, ...], threads: tuple[Thread, ...], member: str, others: list[str]
) -> tuple[Report, ...]:
    """Draws reports in each moderated community: of two threads and three comments, by five people who don't moderate it."""
    numbers = itertools.count(random.randrange(11, 90))
    reports = []
    for community in communities:
        known = [thread for thread in threads if thread.community == community.name and thread.author != member]
        things = random.sample([(thread, None) for thread in known], len(known))
        remarks = [(thread, comment) for thread in known for comment in thread.comments]
        chosen: dict[str, tuple[Thread, Comment | None]] = {}
        for wanted, offered in ((2, things), (REPORTS, random.sample(remarks, len(remarks)))):
            for thread, comment in offered:
                author = comment.author if comment else thread.author
                if len(chosen) < wanted and author not in community.moderators:
                    chosen.setdefault(author, (thread, comment))
        common, *rest = random.sample(vocabulary.REASONS, len(vocabulary.REASONS))
        reasons = random.sample([common, common, *rest], REPORTS)
        for (author, (thread, comment)), reason in zip(chosen.items(), reasons, strict=False):
            reporter = random.choice([name for name in others if name != author])
            reports.append(Report(next(numbers), thread, comment, reporter, reason))
    return tuple(reports)
