"""A profile's rules and conditions made into functions, for one set of delimiters.

A message is seen as *scopes*: segment name -> the fields of the segment in force there, so that a rule may read the
result, its order and the header alike. What was cut out of a field once is remembered, since most texts come again.
"""

import re
import sys
from collections.abc import Callable

from labbridge.formats.er7 import Delimiters, nth
from labbridge.formats.values import Memo
from labbridge.language import EVERY, Alternative, Condition, Path, Rule

Fields = list[str]  # fields[n] is field n as the standard counts, both in HL7 v2 and in LIS02
_BLANK = [""] * 100


class Scope(dict[str, Fields]):
    """The segments in force at one place of a message, by name; one that was not sent is blank."""

    def __missing__(self, name: str) -> Fields:
        return _BLANK


def padded(fields: Fields, width: int) -> Fields:
    """The fields of a segment, made as many as any rule reads of it."""
    missing = width + 1 - len(fields)
    return fields + [""] * missing if missing > 0 else fields


def reading_of(segment: str, rule: Rule, wanted: bool) -> Rule:
    """The alternatives of a rule that read a segment, or those that do not."""
    return tuple(each for each in rule if any(path.segment == segment for path in each.paths) == wanted)


class Rules:
    """Makes functions of rules and conditions; ``widths`` is how many fields of each segment they read.

    ``local_escapes`` says what the sender's own escapes mean: "unicode" a code point, ``\\Z03BC\\`` for the Greek mu.
    """

    def __init__(
        self, delimiters: Delimiters, unescape: Callable[[str, Delimiters], str], widths: dict[str, int], local_escapes: str = ""
    ) -> None:
        self.delimiters = delimiters
        self.widths = widths
        self._unescape = _with_code_points(unescape, delimiters.escape) if local_escapes else unescape
        self._blank = "".join(delimiters[1:]) + " "
        self._memos: dict[tuple[int, int], Memo[str, str]] = {}

    def text(self, rule: Rule) -> Callable[[Scope], str]:
        """The first text that a rule finds, or nothing."""
        finders = [self._finder(alternative) for alternative in rule]
        if len(finders) <= 1:
            return finders[0] if finders else lambda scope: ""

        def first(scope: Scope) -> str:
            for find in finders:
                text = find(scope)
                if text:
                    return text
            return ""

        return first

    def plain(self, rule: Rule) -> Path | None:
        """The one place that a rule reads, if it reads but one and takes its text as it is."""
        if len(rule) != 1 or rule[0].pattern is not None or rule[0].when or len(rule[0].parts) != 1:
            return None
        (part,) = rule[0].parts
        return part if isinstance(part, Path) else None

    def texts(self, rule: Rule) -> Callable[[Scope], tuple[str, ...]]:
        """Every text that a rule's alternatives find, one for each repeat of the first field that an alternative reads.

        Where that path reads every component, there is one for each of them.
        """
        mark, mark_of_repeats = self.delimiters.component, self.delimiters.repeat
        finders = [(alternative.paths[0], *self._parted(alternative)) for alternative in rule]

        if not finders:
            return lambda scope: ()

        def every(scope: Scope) -> tuple[str, ...]:
            found = []
            for (segment, field, component, _), holds, find in finders:
                if holds is not None and not holds(scope):
                    continue
                if component != EVERY and mark_of_repeats not in scope[segment][field]:
                    found.append(find(scope))
                    continue
                alone = Scope(scope)
                fields = alone[segment] = scope[segment].copy()
                pieces = fields[field].split(mark_of_repeats)
                for piece in pieces if component != EVERY else [part for repeat in pieces for part in repeat.split(mark)]:
                    fields[field] = piece
                    found.append(find(alone))
            return tuple(filter(None, found))

        return every

    def refused(self, rule: Rule) -> Callable[[Scope], str]:
        """The first text that is there and that the pattern of its alternative does not fit, where the rule finds nothing."""
        return self.text(tuple(each._replace(pattern=None) for each in rule if each.pattern))

    def condition(self, condition: Condition) -> Callable[[Scope], bool]:
        """Whether any of a condition's tables fits whole."""
        tables = [[(self._place(test.path), test.pattern) for test in table] for table in condition]

        def holds(scope: Scope) -> bool:
            for table in tables:
                for (segment, field, cut), pattern in table:
                    if not pattern.fullmatch(cut[scope[segment][field]]):
                        break
                else:
                    return True
            return False

        return holds

    def _parted(self, alternative: Alternative) -> tuple[Callable[[Scope], bool] | None, Callable[[Scope], str]]:
        """The condition of an alternative, where it is the same for every repeat of its first field, and what it finds."""
        first = alternative.paths[0][:2]
        if not alternative.when or any(test.path[:2] == first for table in alternative.when for test in table):
            return None, self._finder(alternative)
        return self.condition(alternative.when), self._finder(alternative._replace(when=()))

    def _finder(self, alternative: Alternative) -> Callable[[Scope], str]:
        """The text that one alternative finds: that between two others is left out where one of them is missing."""
        parts, pattern, when = alternative
        places = [part if isinstance(part, str) else self._place(part) for part in parts]
        before, behind = (part if isinstance(part, str) else "" for part in (parts[0], parts[-1]))
        if len(places) == 1 and not isinstance(places[0], str) and pattern is None and not when:
            segment, field, cut = places[0]
            return lambda scope: cut[scope[segment][field]]
        holds = self.condition(when or ((),))  # no condition is one that always holds

        def find(scope: Scope) -> str:
            if not holds(scope):
                return ""
            text = between = ""
            for place in places:
                if isinstance(place, str):
                    between = place
                    continue
                segment, field, cut = place
                found = cut[scope[segment][field]]
                if found:
                    text = text + between + found if text else before + found
            text = text + behind if text else ""
            if pattern is not None:
                match = pattern.fullmatch(text)
                text = "" if match is None else match[match.lastindex or 0]
            return text.strip()

        return find

    def _place(self, path: Path) -> tuple[str, int, "Memo[str, str]"]:
        """A place as the functions above read it: segment, field, and what was cut out of such a field."""
        self.widths[path.segment] = max(self.widths.get(path.segment, 0), path.field)
        cut = max(path.component, 0), path.sub  # of every component each stands alone in its field
        if cut not in self._memos:
            self._memos[cut] = Memo(self.cut(path))
        return path.segment, path.field, self._memos[cut]

    def cut(self, path: Path) -> Callable[[str], str]:
        """What takes one place out of a raw field: blanks at its ends removed, escapes resolved after the cut (CONFORMANCE B05)."""
        component, sub = max(path.component, 0), path.sub
        delimiters, unescape, blank = self.delimiters, self._unescape, self._blank
        mark, repeat, between = delimiters.escape, delimiters.repeat, delimiters.component
        nothing = ("", '""')  # the second is HL7's explicit "no value"

        def cut(raw: str) -> str:
            if component:
                raw = raw.partition(repeat)[0]
                raw = nth(raw, between, component) if component > 1 else raw.partition(between)[0]
                raw = nth(raw, delimiters.sub, sub) if sub else raw
            elif not raw.strip(blank):
                return ""
            raw = raw.strip()
            if raw in nothing:
                return ""
            return unescape(raw, delimiters) if mark in raw else raw

        return cut

    def resolve(self, text: str) -> str:
        """A text that was cut out, with its escapes resolved."""
        return self._unescape(text, self.delimiters) if self.delimiters.escape in text else text

    def unresolved(self, text: str) -> bool:
        """Whether a text has bytes in hexadecimal that no character set of the message has."""
        mark = self.delimiters.escape
        return mark in text and bool(mark and re.search("{0}X(?:[0-9A-Fa-f]{{2}})+{0}".format(re.escape(mark)), text))


def _with_code_points(unescape: Callable[[str, Delimiters], str], mark: str) -> Callable[[str, Delimiters], str]:
    """An unescape that takes the local escape Z and four to six hexadecimal digits as a character, if that can be read.

    Other sequences are matched only to be kept, so that the mark which closes one does not open the next.
    """
    if not mark:
        return unescape
    pattern = re.compile("{0}(?:Z([0-9A-Fa-f]{{4,6}})|[FSTREHN]|[CMXZ.][^{0}]*){0}".format(re.escape(mark)))

    def resolve(match: re.Match[str]) -> str:
        code = int(match[1], 16) if match[1] else sys.maxunicode + 1
        return chr(code) if code <= sys.maxunicode and chr(code).isprintable() and chr(code) != mark else match[0]

    return lambda text, delimiters: unescape(pattern.sub(resolve, text) if mark in text else text, delimiters)
