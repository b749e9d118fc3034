"""Selects the option of a select that an action names."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Sequence

from rollouts.web.observation import shown_option

MAX_LISTED = 20
"""For a select with at most this number of options, an error message lists all of them. For a longer one it lists the nearest."""

NEAREST = 10


@dataclasses.dataclass(frozen=True)
class Option:
    place: int
    """Index in the select."""
    label: str
    value: str
    disabled: bool = False

    @property
    def shown(self) -> str:
        """The label in the observation's form."""
        return shown_option(self.label)


def choose(options: Sequence[Option], text: str) -> Option:
    """Returns the option that `text` names.

    Matches are tried in this order: by label, by value, by either ignoring case, by the beginning of a word of the label. White space
    is collapsed. The first kind of match that finds an option decides.

    Raises:
        ValueError: no option or several options match, or the matching option is disabled.
    """
    wanted = _spaced(text)
    for matches in _matchers(wanted):
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


def _matchers(wanted: str) -> Iterator[Callable[[Option], bool]]:
    folded = wanted.casefold()
    yield lambda option: wanted in (_spaced(option.label), option.shown)
    yield lambda option: _spaced(option.value) == wanted
    yield lambda option: folded in (_spaced(option.label).casefold(), option.shown.casefold())
    yield lambda option: _spaced(option.value).casefold() == folded
    if wanted:
        begins = _word_start(folded)
        yield lambda option: any(begins.search(label.casefold()) for label in (_spaced(option.label), option.shown))


def _word_start(folded: str) -> re.Pattern[str]:
    """Pattern for the text at the start of a word. A number must match as a whole: neither 1 in 10, nor 5 in 1.5, nor 5 in -5."""
    before = r"(?<!\w)(?<!\d[.,])(?<!^[-+\u2212])(?<!\s[-+\u2212])" if folded[0].isdigit() else r"(?<!\w)"
    after = r"(?!\d)(?![.,]\d)" if folded[-1].isdigit() else ""
    return re.compile(before + re.escape(folded) + after)


def _nearest(options: Sequence[Option], wanted: str) -> list[Option]:
    by_label = {option.shown: option for option in options}
    labels = [label for label in by_label if wanted and wanted.casefold() in label.casefold()][:NEAREST]
    labels += [label for label in difflib.get_close_matches(wanted[:200], by_label, NEAREST, cutoff=0.0) if label not in labels]
    return [by_label[label] for label in labels[:NEAREST]]


def _listed(options: Sequence[Option]) -> str:
    """Lists the labels, with the values where several options share a label."""
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
