"""Tasks of finding content and of subscribing."""

from random import Random

from mira_arena.sites.forum import facts
from mira_arena.sites.forum.content import ForumContent
from mira_arena.sites.forum.thread_pages import COMMENTS_AT_ONCE
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.forum.milestones import did, did_all, member_page, opened, thread_page
from mira_arena.tasks.forum.moves import LOAD, find, go_to, open_thread
from mira_arena.tasks.forum.targets import forum_targets
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template


def show_rules_of_community(random: Random, content: ForumContent) -> Draft:
    thread = random.choice(content.threads)
    page = f"__FORUM__/c/{thread.community}"
    return Draft(
        values={"title": thread.title},
        evaluation=evaluation(forum_targets(), url=f"{page}/about"),
        milestones=(
            opened(thread), done.on_page(f'open "{thread.community}"', page),
            done.on_page(f'open the rules of "{thread.community}"', f"{page}/about"),
        ),
        moves=(*find(thread.title), Move("click", thread.community), Move("click", "about", habit="stops_early"), EXIT),
    )  # fmt: skip


def tell_commenter_points(random: Random, content: ForumContent) -> Draft | None:
    community, which = random.choice(content.communities).name, random.choice(("newest", "top"))
    thread = content.newest(community) if which == "newest" else content.top(community)[0]
    comments = thread.in_order()
    comment = random.choice(comments)
    if sum(comment.text == other.text for other in comments) != 1:
        return None
    points = next(str(member.points) for member in content.members if member.name == comment.author)
    load = (LOAD,) if comment in comments[COMMENTS_AT_ONCE:] else ()
    return Draft(
        values={"text": comment.text, "which": which, "community": community},
        evaluation=evaluation(forum_targets(), answers={"exact_match": points}),
        milestones=(
            done.on_page(f'open "{community}"', f"__FORUM__/c/{community}"), opened(thread),
            done.on_page(f'open the page of "{comment.author}"', member_page(comment.author)),
            done.answered("answer with the number", points),
        ),
        moves=(
            *go_to(community), Move("click", "new" if which == "newest" else "top"), open_thread(thread.title), *load,
            Move("click", comment.author), Move("tell", argument=r"(\d+) points, here since"),
        ),
    )  # fmt: skip


def tell_lowest_comment(random: Random, content: ForumContent) -> Draft | None:
    """Some comments are not shown initially."""
    thread = random.choice(content.threads)
    if len(thread.comments) <= COMMENTS_AT_ONCE:
        return None
    lowest = min(thread.comments, key=lambda comment: comment.score)
    return Draft(
        values={"title": thread.title},
        evaluation=evaluation(forum_targets(), answers={"exact_match": lowest.author}),
        milestones=(
            opened(thread), done.on_query("load more comments", thread_page(thread), show=str(2 * COMMENTS_AT_ONCE)),
            done.answered("answer with the name", lowest.author),
        ),
        moves=(*find(thread.title), LOAD, Move("tell", argument=rf'([a-z]+ [a-z]+)(?: \d+)?(?:">|</a>)\s*{lowest.score} points?\b')),
    )  # fmt: skip


def swap_subscription(random: Random, content: ForumContent) -> Draft | None:
    old = random.choice(content.subscribed[len(content.moderated) :]).name
    new = random.choice(content.communities[len(content.subscribed) :]).name
    thread = content.top(new)[0]
    if thread.title in content.saved:
        return None
    left, joined = {f"subscribed to {old}": facts.ABSENT}, {f"subscribed to {new}": facts.HERE}
    changes = left | joined | {f'saved "{thread.title}"': facts.HERE}
    return Draft(
        values={"old": old, "new": new},
        evaluation=evaluation(forum_targets(changes)),
        milestones=(
            did(f'unsubscribe from "{old}"', left), done.on_page(f'open "{new}"', f"__FORUM__/c/{new}"),
            did(f'subscribe to "{new}"', joined), opened(thread), did_all(f'save "{thread.title}"', changes),
        ),
        moves=(
            *go_to(old), Move("click", "unsubscribe"), *go_to(new), Move("click", "subscribe"), Move("click", "top"),
            open_thread(thread.title), Move("click", "save", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("forum",), intent, draw)
    for draw, intent in (
        (show_rules_of_community, 'Show the rules of the community in which "{{title}}" was posted.'),
        (
            tell_commenter_points,
            'How many points has the member who commented "{{text}}" on the {{which}} thread of "{{community}}", in all of the forum? '
            "Answer with the number.",
        ),
        (tell_lowest_comment, 'Who wrote the comment with the fewest points on "{{title}}"? Answer with the name.'),
        (swap_subscription, 'Unsubscribe from "{{old}}", subscribe to "{{new}}" and save the thread with the most points there.'),
    )
)
