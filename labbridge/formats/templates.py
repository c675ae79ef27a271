"""What a hospital adds to its messages: templates of fields and segments, compiled once, filled in for each message.

A template is ER7 text in which the values named in braces are escaped. A form's texts come in, functions of a ``Message``
come out; ``completed`` puts the fields that they gave into a segment. What else stands in a segment is decided elsewhere.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from labbridge.formats.er7 import escape
from labbridge.model import Report


class FormError(Exception):
    """The form cannot be compiled; ``key`` is its place in ``[destination.oru]``."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class Message(NamedTuple):
    """The values of one message that a template may name."""

    report: Report
    control_id: str
    stamp: str
    site: str
    analyzer: str


PLACEHOLDERS: Mapping[str, Callable[[Message], str]] = {
    "site.name": attrgetter("site"),
    "analyzer.name": attrgetter("analyzer"),
    **{f"specimen.{name}": attrgetter(f"report.specimen.{name}") for name in ("id", "type", "rack", "position")},
    **{f"patient.{name}": attrgetter(f"report.patient.{name}") for name in ("id", "location")},
    "order.id": attrgetter("report.order"),
    "run.number": lambda message: next((result.run for result in message.report.results if result.run), ""),
    "message.id": attrgetter("control_id"),
    "message.time": attrgetter("stamp"),
}

Template = Callable[[Message], str]
Changes = Mapping[str, Sequence[tuple[int, str]]]  # by segment: the place of a text between the bars, and the text

_SEGMENTS = ("MSH", "PID", "PV1", "ORC", "OBR", "OBX", "SPM")
_FIELD = re.compile(f"({'|'.join(_SEGMENTS)})-([1-9][0-9]?)")
_OURS = frozenset(("MSH-1", "MSH-2", "MSH-10", "OBX-1", "OBX-2", "OBX-5"))


def of_fields(texts: Mapping[str, str]) -> dict[str, list[tuple[int, Template]]]:
    """The templates of fields such as OBR-3, by segment, each with its place. Raises FormError."""
    found: dict[str, list[tuple[int, Template]]] = {}
    for key, text in texts.items():
        match = _FIELD.fullmatch(key)
        if match is None:
            raise FormError(f"fields.{key}", f"expected a field such as OBR-3, of {', '.join(_SEGMENTS)}")
        if key in _OURS:
            raise FormError(f"fields.{key}", "this field cannot be changed")
        # MSH-1 is the separator itself, so that MSH-3 is the second text after the name.
        number = int(match[2]) - (match[1] == "MSH")
        found.setdefault(match[1], []).append((number, _template(f"fields.{key}", text)))
    return found


def of_segments(texts: Sequence[str]) -> list[Template]:
    """The templates of whole segments. Raises FormError."""
    for n, text in enumerate(texts):
        if re.match(r"[A-Z][A-Z0-9]{2}\|", text) is None:
            raise FormError(f"segments[{n}]", "expected a segment such as ZLB|{specimen.id}")
    return [_template(f"segments[{n}]", text) for n, text in enumerate(texts)]


def completed(line: str, changes: Changes) -> str:
    """A segment with its changed fields in place, and without empty ones at its end."""
    if changes and line[:3] in changes:
        row = line.split("|")
        for n, text in changes[line[:3]]:
            row.extend([""] * (n + 1 - len(row)))
            row[n] = text
        line = "|".join(row)
    return line.rstrip("|")


def _template(key: str, text: str) -> Template:
    parts = re.split(r"\{([^{}]*)\}", text)  # every second one is a name
    if re.search(r"[\r\n]", text):
        raise FormError(key, "a field ends with its line")
    if re.search("[{}]", "".join(parts[::2])):
        raise FormError(key, "a brace without its other half")
    for name in parts[1::2]:
        if name not in PLACEHOLDERS:
            raise FormError(key, f"unknown placeholder {{{name}}}; known are {', '.join(PLACEHOLDERS)}")
    pieces = [PLACEHOLDERS[part] if n % 2 else part for n, part in enumerate(parts)]
    return lambda message: "".join(piece if isinstance(piece, str) else escape(piece(message)) for piece in pieces)
