"""Tasks for readers and editors of the encyclopedia."""

from random import Random

from mira_arena.sites.atlas import vocabulary
from mira_arena.sites.atlas.articles import make_articles
from mira_arena.sites.atlas.content import AtlasContent
from mira_arena.sites.paths import slug
from mira_arena.tasks import milestones as done
from mira_arena.tasks.atlas.milestones import article_page, read
from mira_arena.tasks.atlas.moves import LINK, find
from mira_arena.tasks.atlas.targets import targets
from mira_arena.tasks.evaluations import evaluation
from mira_arena.tasks.moves import EXIT, Move
from mira_arena.tasks.templates import Draft, Template

_QUESTIONS = {
    "towns": {
        "has the largest population": ("population", max),
        "was founded first": ("founded", min),
        "has the smallest area": ("area", min),
    },
    "museums": {"was founded first": ("founded", min), "has the most visitors": ("visitors", max)},
    "people": {"was born first": ("born", min), "was born last": ("born", max)},
}
"""Category to questions about its articles: the fact to compare, and which of its values is wanted."""


def compare_articles(random: Random, content: AtlasContent) -> Draft | None:
    category = random.choice(list(_QUESTIONS))
    question, (fact, wins) = random.choice(list(_QUESTIONS[category].items()))
    compared = random.sample(getattr(content, category), 3)
    values = [getattr(about, fact) for about in compared]
    if values.count(wins(values)) > 1:
        return None
    titles = [about.name for about in compared]
    answer, note = titles[values.index(wins(values))], rf"({fact}\s+\d+)"
    return Draft(
        values=dict(zip(("first", "second", "third"), titles, strict=True)) | {"question": question},
        evaluation=evaluation(targets(content), answers={"exact_match": answer}),
        milestones=(*map(read, titles), done.answered("answer with the name", answer)),
        moves=(
            *find(titles[0], careful=True), *find(titles[1], note, careful=True), *find(titles[2], note, careful=True),
            Move("exit", argument=answer, note=note),
        ),
    )  # fmt: skip


def edit_section_and_watch(random: Random, content: AtlasContent) -> Draft | None:
    article = random.choice(list(make_articles(content.seed).values()))
    heading = random.choice(article.sections).heading
    text, summary = random.choice(vocabulary.NEW_TEXTS), random.choice(vocabulary.NEW_SUMMARIES)
    if article.title in content.watched:
        return None
    edit, watched = (article.title, heading, text, summary), sorted([*content.watched, article.title])
    return Draft(
        values={"heading": heading, "title": article.title, "text": text, "summary": summary},
        evaluation=evaluation(targets(content, edits=[edit], watched=watched)),
        milestones=(
            read(article.title),
            done.on_page(f'edit the section "{heading}"', f"{article_page(article.title)}/edit/{slug(heading)}"),
            done.exactly("save the section", "atlas", "edits", [list(edit)]),
            done.exactly("watch the article", "atlas", "watched", watched),
        ),
        moves=(
            *find(article.title), Move("click", "contents"), Move("click", heading), Move("click", f"edit {heading}"),
            Move("type", "text", text), Move("type", "summary", summary), Move("click", "save page"),
            Move("click", "watch", habit="stops_early"), EXIT,
        ),
    )  # fmt: skip


def tell_mayor_of_birthplace(random: Random, content: AtlasContent) -> Draft:
    person = random.choice(content.people)
    mayor = next(town.mayor for town in content.towns if town.name == person.birthplace)
    return Draft(
        values={"person": person.name},
        evaluation=evaluation(targets(content), answers={"exact_match": mayor}),
        milestones=(read(person.name), read(person.birthplace), done.answered("answer with the name", mayor)),
        moves=(*find(person.name), Move("click", person.birthplace), Move("tell", argument=rf"mayor\s+{LINK}")),
    )


TEMPLATES = (
    Template(
        "compare_articles", ("wiki",),
        'Which of "{{first}}", "{{second}}" and "{{third}}" {{question}}? Answer with the name.', compare_articles,
    ),
    Template(
        "edit_section_and_watch", ("wiki",),
        'In the article "{{title}}", change the section "{{heading}}" to "{{text}}" with the summary "{{summary}}", '
        "then watch the article.",
        edit_section_and_watch,
    ),
    Template(
        "tell_mayor_of_birthplace", ("wiki",),
        'Who is the mayor of the town where "{{person}}" was born? Answer with the name.', tell_mayor_of_birthplace, held_out=True,
    ),
)  # fmt: skip
