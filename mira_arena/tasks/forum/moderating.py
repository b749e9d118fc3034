"""Tasks for moderators."""

from random import Random

from mira_arena.sites.forum import facts
from mira_arena.sites.forum.content import ForumContent, Report, new_text, new_title
from mira_arena.tasks import milestones as done
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.forum.milestones import did, did_all
from mira_arena.tasks.forum.moves import MORE, fill_in, go_to
from mira_arena.tasks.forum.targets import forum_targets
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template


def _thing(report: Report) -> str:
    """The reported thread or comment, as named in facts."""
    title = report.thread.title
    return facts.comment_named(report.comment.author, title) if report.comment else facts.thread_named(title)


def _open(report: Report) -> Move:
    return Move("open", f"report {report.number}")


def clear_reports(random: Random, content: ForumContent) -> Draft | None:
    community = random.choice(content.moderated).name
    reports = [report for report in content.reports if report.thread.community == community]
    reasons = [report.reason for report in reports]
    reason = max(reasons, key=reasons.count)
    bad, fine = ([report for report in reports if (report.reason == reason) == wanted] for wanted in (True, False))
    if len(bad) != 2 or not fine:
        return None
    removals = [{f"removed {_thing(report)}": reason, f"report of {_thing(report)}": "removed"} for report in bad]
    approvals = {f"report of {_thing(report)}": "approved" for report in fine}
    bans = [{f"banned {report.author} from {community}": facts.HERE} for report in bad]
    moves = [*go_to(community), Move("click", "reports")]
    for report in bad:
        moves += [
            _open(report), Move("click", "remove"), Move("choose", "reason", reason, "forgets_option"), Move("click", "confirm removal"),
        ]  # fmt: skip
    for report in fine:
        moves += [_open(report), Move("click", "approve")]
    moves.append(Move("click", "banned members"))
    for report in bad:
        moves += [Move("type", "member", report.author), Move("click", "ban", habit="stops_early")]
    changes = removals[0] | removals[1] | approvals | bans[0] | bans[1]
    return Draft(
        values={"community": community, "reason": reason},
        evaluation=evaluation(forum_targets(changes)),
        milestones=(
            done.on_page(f'open the reports of "{community}"', f"__FORUM__/c/{community}/reports"),
            *(did(f'remove what report {report.number} is about', removed) for report, removed in zip(bad, removals, strict=True)),
            did("approve what was reported for other reasons", approvals),
            did(f'ban "{bad[0].author}"', bans[0]),
            did_all(f'ban "{bad[1].author}"', changes),
        ),
        moves=(*moves, EXIT),
    )  # fmt: skip


def announce(random: Random, content: ForumContent) -> Draft | None:
    community, text = random.choice(content.moderated), new_text(random)
    title, flair = new_title(random, community.name), random.choice(community.flairs)
    if title in content.by_title:
        return None
    posted, flaired = {facts.posted(title, community.name): text}, {f'flair of "{title}"': flair}
    stuck, locked = {f'sticky "{title}"': facts.HERE}, {f'locked "{title}"': facts.HERE}
    changes = posted | flaired | stuck | locked
    return Draft(
        values={"title": title, "text": text, "community": community.name, "flair": flair},
        evaluation=evaluation(forum_targets(changes)),
        milestones=(
            done.on_page("open the form", "__FORUM__/new"), did(f'post "{title}"', posted), did(f'give it the flair "{flair}"', flaired),
            did("make it sticky", stuck), did_all("lock it", changes),
        ),
        moves=(
            *fill_in(community.name, title, text), Move("click", "post thread"),
            MORE, Move("click", "set flair"), Move("choose", "flair", flair, "forgets_option"), Move("click", "save flair"),
            MORE, Move("click", "make sticky"), MORE, Move("click", "lock", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


TEMPLATES = tuple(
    Template(draw.__name__, ("forum",), intent, draw)
    for draw, intent in (
        (
            clear_reports,
            'Settle every report of "{{community}}", which you moderate: remove what was reported as "{{reason}}", with that reason, '
            "and ban its authors there; approve the rest.",
        ),
        (
            announce,
            'Post a thread with the title "{{title}}" and the text "{{text}}" in "{{community}}", which you moderate; '
            'give it the flair "{{flair}}", make it sticky and lock it.',
        ),
    )
)
