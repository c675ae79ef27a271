"""A profile's rules and conditions made into functions, for one set of delimiters.

A message is seen as *scopes*: segment name -> the fields of the segment in force there, so that a rule may read the
result, its order and the header alike. Most rules read one field, and its few texts (codes, units, flags) are
remembered, so that a result costs a handful of look-ups.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from labbridge.formats.er7 import Delimiters
from labbridge.formats.values import Memo
from labbridge.profiles import Alternative, Condition, Path, Rule, Test

Fields = list[str]


class Scope(dict[str, Fields]):
    """The segments in force at one place of a message, by name; one that was not sent is blank."""

    def __missing__(self, name: str) -> Fields:
        return _BLANK


_BLANK = [""] * 100

Place = tuple[str, int]
Get = Callable[[Scope], str]
GetAll = Callable[[Scope], tuple[str, ...]]
Holds = Callable[[Scope], bool]


class Rules:
    """Makes functions of rules and conditions, for one set of delimiters."""

    def __init__(self, delimiters: Delimiters, unescape: Callable[[str], str], shift: int) -> None:
        self._component, self._repeat, self._escape, self._sub = delimiters[1:]
        self._blank = "".join(delimiters[1:]) + " "
        self._shift = shift  # fields[n - shift] is field n
        self._unescape = unescape

    def text(self, rule: Rule) -> Get:
        """The first text that a rule finds, or nothing."""
        groups = [(place, list(group)) for place, group in itertools.groupby(rule, _place)]
        steps = [(place[0], place[1] - self._shift, Memo(self._first(group))) for place, group in groups if place]
        if len(steps) < len(groups):
            return self._first_of([self._anywhere(each) for each in rule])
        if len(steps) == 1:
            segment, index, memo = steps[0]
            return lambda scope: memo[scope[segment][index]]

        def look(scope: Scope) -> str:
            for segment, index, memo in steps:
                text = memo[scope[segment][index]]
                if text:
                    return text
            return ""

        return look

    def texts(self, rule: Rule) -> GetAll:
        """Every text that a rule's alternatives find, repeats one by one; a template counts as one."""
        finders = [self._each(alternative) for alternative in rule]
        if len(finders) == 1:
            return finders[0]
        return lambda scope: tuple(text for find in finders for text in find(scope))

    def field(self, rule: Rule, segment: str) -> tuple[int, Callable[[str], str]] | None:
        """The one field of this segment that a rule reads, and what it makes of it; None where it reads others too."""
        places = {_place(alternative) for alternative in rule}
        place = places.pop() if len(places) == 1 else None
        if place is None or place[0] != segment:
            return None
        return place[1] - self._shift, self._first(rule)

    def repeats(self, rule: Rule, segment: str) -> tuple[int, Callable[[str], tuple[str, ...]]] | None:
        """The same for a rule that finds several texts."""
        place = _place(rule[0]) if len(rule) == 1 else None
        if place is None or place[0] != segment:
            return None
        return place[1] - self._shift, self._every(rule[0])

    def condition(self, condition: Condition) -> Holds:
        """Whether any of a condition's tables fits whole."""
        tables = [
            [(test.path.segment, test.path.field - self._shift, Memo(self._fits(test))) for test in table] for table in condition
        ]

        def holds(scope: Scope) -> bool:
            for table in tables:
                for segment, index, memo in table:
                    if not memo[scope[segment][index]]:
                        break
                else:
                    return True
            return False

        return holds

    def _fits(self, test: Test) -> Callable[[str], bool]:
        return lambda raw: test.pattern.fullmatch(self._cut(test.path, raw)) is not None

    def _first(self, alternatives: Sequence[Alternative]) -> Callable[[str], str]:
        """What alternatives that read the same field make of it."""
        if len(alternatives) == 1 and _is_plain(alternatives[0]):
            return partial(self._cut, alternatives[0].paths[0])
        return lambda raw: next(filter(None, (self._find(each, lambda path: raw) for each in alternatives)), "")

    def _every(self, alternative: Alternative) -> Callable[[str], tuple[str, ...]]:
        """What an alternative makes of each repeat of its field."""

        def one(raw: str) -> str:
            return self._find(alternative, lambda path: raw)

        return lambda raw: tuple(filter(None, map(one, raw.split(self._repeat) if self._repeat else [raw])))

    def _each(self, alternative: Alternative) -> GetAll:
        place = _place(alternative)
        if place is None:
            find = self._anywhere(alternative)
            return lambda scope: tuple(filter(None, (find(scope),)))
        segment, index, memo = place[0], place[1] - self._shift, Memo(self._every(alternative))
        return lambda scope: memo[scope[segment][index]]

    def _first_of(self, finders: Sequence[Get]) -> Get:
        return lambda scope: next(filter(None, (find(scope) for find in finders)), "")

    def _anywhere(self, alternative: Alternative) -> Get:
        """Reads several fields, or one under a condition: nothing is remembered."""
        holds = self.condition(alternative.when) if alternative.when else None

        def find(scope: Scope) -> str:
            if holds is not None and not holds(scope):
                return ""
            return self._find(alternative, lambda path: scope[path.segment][path.field - self._shift])

        return find

    def _find(self, alternative: Alternative, raw: Callable[[Path], str]) -> str:
        """What one alternative makes of the raw fields: the text between two that are missing is left out."""
        text = between = ""
        for part in alternative.parts:
            if isinstance(part, str):
                between = part
                continue
            found = self._cut(part, raw(part))
            if found:
                text = text + between + found if text else found
        if alternative.strip:
            text = text.strip(alternative.strip)
        if alternative.pattern is not None:
            match = alternative.pattern.fullmatch(text)
            text = "" if match is None else match[match.lastindex or 0]
        return text.strip()

    def _cut(self, path: Path, raw: str) -> str:
        """One place of a raw field: blanks at its ends removed, escapes resolved after the cut (CONFORMANCE B05)."""
        if not raw:
            return ""
        if path.component:
            if self._repeat and self._repeat in raw:
                raw = raw.partition(self._repeat)[0]
            raw = _nth(raw, self._component, path.component)
            if path.sub:
                raw = _nth(raw, self._sub, path.sub)
        elif not raw.strip(self._blank):
            return ""
        raw = raw.strip()
        if raw == '""':  # HL7's explicit "no value"
            return ""
        return self._unescape(raw) if self._escape and self._escape in raw else raw


def _place(alternative: Alternative) -> Place | None:
    """The segment and field that an alternative reads, if it reads but one and under no condition."""
    places = {(path.segment, path.field) for path in alternative.paths}
    return None if alternative.when or len(places) != 1 else places.pop()


def _is_plain(alternative: Alternative) -> bool:
    return len(alternative.parts) == 1 and not alternative.strip and alternative.pattern is None


def _nth(text: str, separator: str, n: int) -> str:
    if not separator or separator not in text:
        return text if n == 1 else ""
    parts = text.split(separator, n)
    return parts[n - 1] if n <= len(parts) else ""
