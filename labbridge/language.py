"""The language of profiles: rules that find a text in a message, and conditions, compiled from what a file says.

A rule is a path, a template, a table, or a list of these, of which the first that finds a text wins::

    "R-3.5"                      component 5 of field 3 of the R record, numbered as in the standard (R-1 is the R)
    "{R-3.4}/{R-3.11}"           both, and the slash only between two texts that are there
    "{R-3.4}/grade"              a text with a fixed one behind it
    "R-7.*"                      each component of field 7, where a list is read
    {from = "O-4.3", pattern = "QC-(.*)", when = {"O-12" = "Q"}}

A condition is a table of paths and the patterns that must fit them whole; in a list of tables any one suffices.
Functions here raise ValueError with what was expected; where it stands in the file is ``profiles``' to say.
"""

import re
from typing import Any, NamedTuple

EVERY = -1  # the component of a path that stands for each of them: "R-7.*"


class Path(NamedTuple):
    """A place in a message: segment or record, field, component, subcomponent; 0 means the whole of the one above."""

    segment: str
    field: int
    component: int = 0
    sub: int = 0


class Test(NamedTuple):
    """One line of a condition: the text at this place fits this pattern whole."""

    path: Path
    pattern: re.Pattern[str]


Condition = tuple[tuple[Test, ...], ...]  # any of these, each all of those


class Alternative(NamedTuple):
    """One way to find a text: the parts of a template (a plain path is a template of one part), and what to keep."""

    parts: tuple[Path | str, ...]
    pattern: re.Pattern[str] | None = None
    when: Condition = ()

    @property
    def paths(self) -> list[Path]:
        """The places that it reads, those of its condition included."""
        tests = [test.path for table in self.when for test in table]
        return [part for part in self.parts if isinstance(part, Path)] + tests


Rule = tuple[Alternative, ...]


class Part(NamedTuple):
    """One of several answers in a record that is such a one: its code, its value, and its unit where that is its own."""

    code: Rule
    value: Rule
    unit: Rule | None = None
    when: Condition = ()


def texts(given: Any) -> Rule:
    """A rule of which every text is taken, one for each repeat, and for each component where it says so."""
    return tuple(_alternative(each) for each in (given if isinstance(given, list) else [given]) if each != "")


def rule(given: Any) -> Rule:
    """A rule that finds one text."""
    found = texts(given)
    for path in (path for alternative in found for path in alternative.paths):
        _single(path)
    return found


def condition(given: Any) -> Condition:
    """A condition; an empty list is one that never holds."""
    tables = given if isinstance(given, list) else [given]
    if not all(isinstance(table, dict) and table for table in tables):
        raise ValueError('a condition is expected: {"O-12" = "Q"}')
    return tuple(tuple(Test(_single(_path(path)), pattern(fits)) for path, fits in table.items()) for table in tables)


def demand(given: Any) -> Condition:
    """A condition that can hold."""
    if given == []:
        raise ValueError("a condition is expected: an empty list would never hold")
    return condition(given)


def segments(meant: Any) -> set[str]:
    """The segments that a compiled rule or condition, or anything that has such in it, reads."""
    if isinstance(meant, Path):
        return {meant.segment}
    return {segment for each in meant for segment in segments(each)} if isinstance(meant, tuple) else set()


def text(given: Any) -> str:
    """A text, and nothing else."""
    if not isinstance(given, str):
        raise ValueError("a text is expected")
    return given


def pattern(given: Any) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text(given))
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


def _alternative(given: Any) -> Alternative:
    table = {"from": given} if isinstance(given, str) else given
    if not isinstance(table, dict) or not {"from"} <= set(table) <= {"from", "pattern", "when"}:
        raise ValueError('a path such as "OBX-3.1" is expected, or {from = …, pattern = …, when = …}')
    fits = pattern(table["pattern"]) if "pattern" in table else None
    return Alternative(_template(text(table["from"])), fits, condition(table.get("when", [])))


_PATH = re.compile(r"([A-Z][A-Z0-9]{0,2})-([1-9][0-9]?)(?:\.(?:(\d{1,2})(?:\.(\d{1,2}))?|(\*)))?")


def _path(text: str) -> Path:
    match = _PATH.fullmatch(text)
    if match is None:
        raise ValueError(f'a path such as "OBX-3.1" is expected, not {text!r}')
    return Path(match[1], int(match[2]), EVERY if match[5] else int(match[3] or 0), int(match[4] or 0))


def _single(path: Path) -> Path:
    if path.component == EVERY:
        raise ValueError(f'"{path.segment}-{path.field}.*" stands alone, and only where a list is read: flags, alarms, comments …')
    return path


def _template(text: str) -> tuple[Path | str, ...]:
    if "{" not in text:
        return (_path(text),)
    pieces = re.split(r"\{([^{}]*)\}", text)
    if len(pieces) < 3 or not all(pieces[2:-1:2]) or any(mark in piece for piece in pieces[::2] for mark in "{}"):
        raise ValueError(f'a template is "{{path}}", text, "{{path}}" …: {text!r}')
    return tuple(_single(_path(piece)) if odd % 2 else piece for odd, piece in enumerate(pieces) if odd % 2 or piece)
