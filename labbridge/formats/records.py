"""What a profile says of whole records: which of them are results, which judge the others, which have several answers.

Each of these is rare, so they stand here, beside the road that every result takes (``reading``).
"""

from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from labbridge.formats.rules import Fields, Rules, Scope
from labbridge.formats.values import Understood
from labbridge.model import Reason, Result
from labbridge.profiles import Section

Item = tuple[str, Sequence[Fields]]  # a result's own record, and the notes or comments that belong to it

NO_CODE = Reason("no-code")
BAD_TIME = Reason("bad-time")
UNREADABLE = Reason("unreadable-value")
_NOT_VALID = Reason("not-valid")
_CUT_OFF = Reason("incomplete", {"why": "a result is cut off"})


class Records:
    """The words ``keep``, ``valid``, ``complete``, ``parts`` and ``measured_once`` of a profile's [result].

    ``used`` is whether there is any of them. ``fields`` takes a record apart, ``understand`` a value.
    """

    def __init__(
        self, section: Section, rules: Rules, fields: Callable[[str], Fields], understand: Callable[[str], Understood]
    ) -> None:
        self._record, self._fields, self._understand = section["record"], fields, understand
        self._unresolved = rules.unresolved
        always = ((),)
        self._keep, self._valid, self._complete = (
            rules.condition(section.get(word, always)) for word in ("keep", "valid", "complete")
        )
        self._parts = [
            (
                rules.condition(part.when or always),
                rules.text(part.code),
                rules.text(part.value),
                rules.refused(part.value),
                part.unit and rules.text(part.unit),
            )
            for part in section.get("parts", ())
        ]
        self._once = section.get("measured_once", False)
        self.used = self._once or any(word in section for word in ("keep", "valid", "complete", "parts"))

    def results(
        self, read: Callable[[Sequence[Item]], Sequence[Result]], scope: Scope, items: Sequence[Item]
    ) -> tuple[list[Result], list[Reason]]:
        """The results of an order, of which ``read`` reads those records that are any, and what holds its whole report."""
        kept: list[Item] = []
        problems: list[Reason] = []
        valid = True
        for item in items:
            scope[self._record] = self._fields(item[0])
            valid = valid and self._valid(scope)
            if not problems and not self._complete(scope):
                problems = [_CUT_OFF]
            if self._keep(scope):
                kept.append(item)
        found = read(kept)
        if self._once:
            found = _timed_as_the_first(found)
        if not valid:
            found = [replace(result, problems=(*result.problems, _NOT_VALID)) for result in found]
            problems += [] if found else [_NOT_VALID]
        if not self._parts:
            return list(found), problems
        return [part for item, result in zip(kept, found, strict=True) for part in self._apart(scope, item, result)], problems

    def _apart(self, scope: Scope, item: Item, result: Result) -> list[Result]:
        """The answers in one record; the result as it was read, where none of those can be."""
        scope[self._record] = self._fields(item[0])
        answers = list(self._answers(scope, result))
        return answers if any(UNREADABLE not in answer.problems for answer in answers) else [result]

    def _answers(self, scope: Scope, result: Result) -> Iterator[Result]:
        others = tuple(problem for problem in result.problems if problem not in (NO_CODE, UNREADABLE))
        for holds, code_of, value_of, refused, unit_of in self._parts:
            if not holds(scope):
                continue
            text = value_of(scope)
            unread = "" if text else refused(scope)
            if text or unread:
                value, kind, number, comparator = self._understand(text) if text else (unread, "text", "", "")
                code, unit = code_of(scope), unit_of(scope) if unit_of else result.unit if unit_of is None else ""
                wrong = bool(unread) or (not number and self._unresolved(value))
                problems = (*others, *([UNREADABLE] if wrong else []), *([] if code else [NO_CODE]))
                yield replace(
                    result, code=code, value=value, kind=kind, number=number, comparator=comparator, unit=unit, problems=problems
                )


def _timed_as_the_first(results: Sequence[Result]) -> Sequence[Result]:
    """The results, those without a time at that of the first one which has any; a bad one is bad for all."""
    timed = [result.measured_at is not None or BAD_TIME in result.problems for result in results]
    if True not in timed:
        return results
    first = results[timed.index(True)]
    bad = tuple(problem for problem in first.problems if problem == BAD_TIME)
    return [
        result
        if own
        else replace(result, measured=first.measured, measured_at=first.measured_at, problems=(*result.problems, *bad))
        for own, result in zip(timed, results, strict=True)
    ]
