"""Which option of a select an action means."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Sequence

from rollouts.web.observation import shown_option

MAX_LISTED = 20
"""A select of no more options has all of them listed in a refusal; of a longer one the nearest are."""

NEAREST = 10


@dataclasses.dataclass(frozen=True)
class Option:
    place: int
    """Its index in the select."""
    label: str
    value: str
    disabled: bool = False

    @property
    def shown(self) -> str:
        """The label as observations write it."""
        return shown_option(self.label)


def choose(options: Sequence[Option], text: str) -> Option:
    """The option that `text` names.

    In this order: by its label, by its value, by either in other case, by the beginning of a word of its label. Runs of white
    space count as one space. The first way that finds an option decides.

    Raises:
        ValueError: no option is found, several are, or the one that is found is disabled.
    """
    wanted = _spaced(text)
    for matches in _ways(wanted):
        found = [option for option in options if matches(option)]
        enabled = [option for option in found if not option.disabled]
        if len({(option.label, option.value) for option in enabled}) == 1:
            return enabled[0]
        if enabled:
            raise ValueError(f'has several options for "{_short(text)}": {_listed(enabled)}')
        if found:
            raise ValueError(f'has the option "{_short(found[0].shown)}", but it is disabled')
    if len(options) <= MAX_LISTED:
        raise ValueError(f'has no option "{_short(text)}"; it has {_listed(options)}')
    raise ValueError(f'has no option "{_short(text)}"; the nearest of its {len(options)} are {_listed(_nearest(options, wanted))}')


def _ways(wanted: str) -> Iterator[Callable[[Option], bool]]:
    folded = wanted.casefold()
    yield lambda option: wanted in (_spaced(option.label), option.shown)
    yield lambda option: _spaced(option.value) == wanted
    yield lambda option: folded in (_spaced(option.label).casefold(), option.shown.casefold())
    yield lambda option: _spaced(option.value).casefold() == folded
    if wanted:
        begins = _word_start(folded)
        yield lambda option: any(begins.search(label.casefold()) for label in (_spaced(option.label), option.shown))


def _word_start(folded: str) -> re.Pattern[str]:
    """Finds the text where a word begins. A number is found whole: neither 1 in 10, nor 5 in 1.5, nor 5 in -5."""
    before = r"(?<!\w)(?<!\d[.,])(?<!^[-+\u2212])(?<!\s[-+\u2212])" if folded[0].isdigit() else r"(?<!\w)"
    after = r"(?!\d)(?![.,]\d)" if folded[-1].isdigit() else ""
    return re.compile(before + re.escape(folded) + after)


def _nearest(options: Sequence[Option], wanted: str) -> list[Option]:
    by_label = {option.shown: option for option in options}
    labels = [label for label in by_label if wanted and wanted.casefold() in label.casefold()][:NEAREST]
    labels += [label for label in difflib.get_close_matches(wanted[:200], by_label, NEAREST, cutoff=0.0) if label not in labels]
    return [by_label[label] for label in labels[:NEAREST]]


def _listed(options: Sequence[Option]) -> str:
    """The labels; where one stands for several options, the values as well."""
    labels = [option.shown for option in options]
    names = [
        f'"{option.shown}"' + (f' (value "{_short(shown_option(option.value))}")' if labels.count(option.shown) > 1 else "")
        for option in options[:MAX_LISTED]
    ]
    return ", ".join(names) + (f" and {len(options) - MAX_LISTED} more" if len(options) > MAX_LISTED else "") or "none"


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    return shown_option(text)[:60]
