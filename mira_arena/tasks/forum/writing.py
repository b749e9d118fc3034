"""Tasks of writing threads, comments and messages."""

from random import Random

from mira_arena.sites.forum import facts, vocabulary
from mira_arena.sites.forum.content import ForumContent, new_text, new_title
from mira_arena.sites.forum.thread_pages import COMMENTS_AT_ONCE
from mira_arena.sites.paths import slug
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.forum.milestones import did, did_all, member_page, opened
from mira_arena.tasks.forum.moves import LOAD, MORE, fill_in, find, go_to, open_thread, write_to
from mira_arena.tasks.forum.targets import forum_targets
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template


def _conversation(name: str) -> str:
    return f"__FORUM__/messages/{slug(name)}"


def sign_in_and_post(random: Random, content: ForumContent) -> Draft | None:
    community, text = random.choice(content.communities).name, new_text(random)
    title = new_title(random, community)
    if title in content.by_title:
        return None
    changes = {facts.posted(title, community): text}
    return Draft(
        values={"member": content.member, "password": content.password, "title": title, "text": text, "community": community},
        evaluation=evaluation(forum_targets(changes)),
        milestones=(
            done.exactly(f'sign in as "{content.member}"', "forum", "signed_in", True), done.on_page("open the form", "__FORUM__/new"),
            did_all(f'post "{title}"', changes),
        ),
        moves=(
            Move("click", "sign in"), Move("type", "member name", content.member), Move("type", "password", content.password),
            Move("click", "continue"), *fill_in(community, title, text), Move("click", "post thread", habit="stops_early"), EXIT,
        ),
        setup={"forum": {"signed_in": False}},
    )  # fmt: skip


def reply_to_comment(random: Random, content: ForumContent) -> Draft | None:
    """The comment is not among those shown initially."""
    thread = random.choice(content.threads)
    if len(thread.comments) <= COMMENTS_AT_ONCE:
        return None
    comment, text = random.choice(thread.in_order()[COMMENTS_AT_ONCE:]), random.choice(vocabulary.COMMENTS)
    voted = {f"vote on {facts.comment_named(comment.author, thread.title)}": "up"}
    changes = voted | {facts.commented(thread.title, text, comment.author): facts.HERE}
    return Draft(
        values={"author": comment.author, "title": thread.title, "text": text},
        evaluation=evaluation(forum_targets(changes)),
        milestones=(
            opened(thread), did(f'upvote the comment of "{comment.author}"', voted),
            done.on_page("open the comment", f"__FORUM__/comment/{comment.id}"), did_all(f'reply "{text}"', changes),
        ),
        moves=(
            *find(thread.title), LOAD, Move("click", f"upvote {comment.author}"), Move("click", f"reply to {comment.author}"),
            Move("type", "your reply", text), Move("click", "post reply", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def edit_and_delete(random: Random, content: ForumContent) -> Draft | None:
    edited, deleted = random.sample(content.own_threads, 2)
    text = new_text(random)
    if text == edited.text:
        return None
    change = {facts.posted(edited.title, edited.community): f"{edited.link} {text}".strip()}
    changes = change | {facts.posted(deleted.title, deleted.community): facts.ABSENT}
    return Draft(
        values={"edited": edited.title, "text": text, "deleted": deleted.title},
        evaluation=evaluation(forum_targets(changes)),
        milestones=(
            done.on_page("open the profile", member_page(content.member)), opened(edited),
            did(f'change the text of "{edited.title}"', change), opened(deleted), did_all(f'delete "{deleted.title}"', changes),
        ),
        moves=(
            Move("click", "profile"), open_thread(edited.title), MORE, Move("click", "edit"), Move("type", "text", text),
            Move("click", "save text", habit="stops_early"), Move("click", "profile"), open_thread(deleted.title), MORE,
            Move("click", "delete"), Move("click", "confirm deletion", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def answer_message(random: Random, content: ForumContent) -> Draft:
    """In half of the instances the member has sent no message. Then the correct result is to report this."""
    text = random.choice(vocabulary.NOTES)
    known = random.random() < 0.5
    strangers = [member.name for member in content.members if member.name not in (*content.correspondents, content.member)]
    name = random.choice(content.correspondents if known else strangers)
    changes = {facts.sent(name, text): facts.HERE} if known else {}
    steps = (
        (done.on_page(f'open the messages of "{name}"', _conversation(name)), did_all(f'send "{text}"', changes))
        if known
        else (done.on_query("open the second page", "__FORUM__/messages", page="2"), done.answered('answer "N/A"', "N/A"))
    )
    return Draft(
        values={"name": name, "text": text},
        evaluation=evaluation(forum_targets(changes), answers=None if known else {"fuzzy_match": "N/A"}),
        milestones=(done.on_page("open the inbox", "__FORUM__/messages"), *steps),
        moves=(
            Move("click", "inbox"), Move("open", name, missing="N/A"), Move("type", "your message", text),
            Move("click", "send", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def message_top_authors(random: Random, content: ForumContent) -> Draft | None:
    community, text = random.choice(content.communities).name, random.choice(vocabulary.NOTES)
    threads = content.top(community)[:3]
    authors = [thread.author for thread in threads]
    if len({*authors, content.member}) != 4:
        return None
    changes = {facts.sent(author, text): facts.HERE for author in authors}
    steps, moves = [], []
    for thread in threads:
        steps += [opened(thread), did(f'send "{text}" to "{thread.author}"', {facts.sent(thread.author, text): facts.HERE})]
        moves += [*go_to(community), Move("click", "top"), open_thread(thread.title), *write_to(thread.author, text)]
    return Draft(
        values={"text": text, "community": community},
        evaluation=evaluation(forum_targets(changes)),
        milestones=(*steps[:-1], did_all(f'send "{text}" to "{authors[-1]}"', changes)),
        moves=(*moves, EXIT),
    )


def ask_moderators(random: Random, content: ForumContent) -> Draft:
    community, text = random.choice(content.communities[len(content.moderated) :]), random.choice(vocabulary.NOTES)
    page = f"__FORUM__/c/{community.name}/about"
    changes = {facts.sent(name, text): facts.HERE for name in community.moderators}
    first, second = community.moderators
    return Draft(
        values={"text": text, "community": community.name},
        evaluation=evaluation(forum_targets(changes)),
        milestones=(
            done.on_page("open what the community is about", page), done.on_page(f'open the page of "{first}"', member_page(first)),
            did(f'send "{text}" to "{first}"', {facts.sent(first, text): facts.HERE}),
            done.on_page(f'open the page of "{second}"', member_page(second)), did_all(f'send "{text}" to "{second}"', changes),
        ),
        moves=(
            *(move for name in (first, second) for move in (*go_to(community.name), Move("click", "about"), *write_to(name, text))), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("forum",), intent, draw, held_out=draw is ask_moderators)
    for draw, intent in (
        (
            sign_in_and_post,
            'Sign in as "{{member}}" with password "{{password}}", then post a thread with the title "{{title}}" '
            'and the text "{{text}}" in "{{community}}".',
        ),
        (reply_to_comment, 'Upvote the comment of "{{author}}" on "{{title}}" and reply to it with "{{text}}".'),
        (edit_and_delete, 'Change the text of your thread "{{edited}}" to "{{text}}", and delete your thread "{{deleted}}".'),
        (answer_message, 'Answer the message from "{{name}}" in your inbox with "{{text}}". If there is none, answer "N/A".'),
        (
            message_top_authors,
            'Send the message "{{text}}" to each of the authors of the three threads with the most points in "{{community}}".',
        ),
        (ask_moderators, 'Send the message "{{text}}" to every moderator of "{{community}}".'),
    )
)
