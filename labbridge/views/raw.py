"""A message's bytes for people: as text, as hexadecimal lines, and as a tree whose fields have the standard's names.

Whatever the bytes are, nothing here raises and everything is bounded: what is left out is said to be.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Any

import hl7
import msgspec
from hl7apy import load_reference
from hl7apy.exceptions import ChildNotFound, UnsupportedVersion

from labbridge.formats import er7
from labbridge.showing import brief, readable, shown
from labbridge.store import Reader
from labbridge.store.rows import Attempt
from labbridge.views.texts import _, time_text

READ_BYTES = 1 << 20  # of a message, as text and as a tree
SHOWN = 131_072  # characters of it
LINE = 4000  # characters of one segment or record
NODES = 4000
PAGE = 4096  # bytes of a page of hexadecimal lines

_VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2")
_USUAL = "2.5.1"
_FRAME = re.compile("[\x02\x03\x04\x05\x0b\x17\x1c]")

# The fields of each record of LIS02-A2 (ASTM E1394), numbered from 1.
_RECORDS = {
    "H": "record|delimiters|message control id|password|sender|sender address||sender telephone|sender characteristics"
    "|receiver|comment|processing id|version|date and time",
    "P": "record|sequence|practice patient id|laboratory patient id|third patient id|name|mother's maiden name|birth date|sex|race"
    "|address||telephone|attending physician|special field 1|special field 2|height|weight|diagnosis|medications|diet"
    "|practice field 1|practice field 2|admission and discharge|admission status|location",
    "O": "record|sequence|specimen id|instrument specimen id|universal test id|priority|ordered|collected|collection end"
    "|collection volume|collector|action code|danger code|clinical information|received|specimen descriptor|physician|telephone"
    "|user field 1|user field 2|laboratory field 1|laboratory field 2|reported|charge|section id|report types||location"
    "|nosocomial infection|service|institution",
    "R": "record|sequence|universal test id|value|units|reference range|abnormal flags|nature of abnormality|status"
    "|change of normative values|operator|started|completed|instrument",
    "C": "record|sequence|source|text|type",
    "M": "record|sequence",
    "S": "record|sequence",
    "Q": "record|sequence|starting range id|ending range id|universal test id|nature of time limits|beginning|ending|physician"
    "|telephone|user field 1|user field 2|status codes",
    "L": "record|sequence|termination code",
}


class Node(msgspec.Struct, frozen=True):
    """One part of a message: where it stands (``OBX-5``; empty for a segment), the standard's name, its text, and its parts."""

    place: str
    name: str
    text: str
    parts: tuple["Node", ...] = ()


def body_of(reader: Reader, kind: str, id: int) -> tuple[str, bytes, int] | None:
    """A message, a delivery or an attempt (an answer): its title, its bytes, how many there were; None where it is not there."""
    if kind == "message" and (message := reader.message(id)):
        title = _("Message {id} from {analyzer}, {time}", id=id, analyzer=brief(message.analyzer), time=time_text(message.at))
        return title, message.body, message.size
    if kind == "delivery" and (delivery := reader.find_delivery(id)):
        title = _("What {destination} receives: delivery {id}", destination=delivery.destination, id=id)
        return title, delivery.payload, len(delivery.payload)
    for attempt in reader.rows(Attempt, "id", [id]) if kind == "attempt" else ():
        title = _("What the hospital answered to delivery {id}", id=attempt.delivery_id)
        return title, attempt.reply, len(attempt.reply)
    return None


def text_lines(body: bytes) -> tuple[list[str], int]:
    """The segments or records of a message, a line each, control characters as escapes; and how many bytes were left out."""
    return [shown(line) for line in _lines(body)], max(0, len(body) - READ_BYTES)


def hex_lines(body: bytes, page: int = 0) -> list[str]:
    """A page of lines of 16 bytes: offset, hexadecimal, and the printable ones of ASCII as text."""
    lines = []
    for at in range(page * PAGE, min(page * PAGE + PAGE, len(body)), 16):
        data = body[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in data)
        lines.append(f"{at:08x}  {data[:8].hex(' '):<23}  {data[8:].hex(' '):<23}  {text}")
    return lines


def pages(body: bytes) -> int:
    """How many pages ``hex_lines`` has."""
    return max(1, -(-len(body) // PAGE))


def tree(body: bytes) -> tuple[Node, ...]:
    """The segments of HL7 or the records of ASTM with their fields; lines where the bytes are neither."""
    lines = _lines(body)
    try:
        return tuple(_bounded(_of_hl7(lines) if lines and lines[0].startswith("MSH") else _of_records(lines)))
    except Exception:  # python-hl7 raises whatever comes to its mind at bytes that are no message
        return tuple(_bounded(Node("", "", brief(line)) for line in lines))


def _lines(body: bytes) -> list[str]:
    """The segments or records of a message, each cut where it is too long, as many as there is room for."""
    lines: list[str] = []
    room = SHOWN
    for line in re.split("[\r\n\x0b\x1c]", readable(body[:READ_BYTES]).lstrip("\ufeff")):
        if line.strip(" \t"):
            room -= min(len(line), LINE) + 1
            if room < 0 or len(lines) == NODES:
                return [*lines, "…"]
            lines.append(line if len(line) <= LINE else line[:LINE] + "…")
    return lines


def _bounded(nodes: Iterator[Node]) -> Iterator[Node]:
    """The nodes as long as there are no more than ``NODES`` with all their parts."""
    left = NODES
    for node in nodes:
        left -= _size(node)
        if left < 0:
            yield Node("…", "", "")
            return
        yield node


def _size(node: Node) -> int:
    return 1 + sum(map(_size, node.parts))


def _field(
    place: str, name: str, text: str, repeats: Sequence[Sequence[str]], names: Sequence[str] = (), plain: Callable[[str], str] = str
) -> Node:
    """A field; with its components below it where it has several, or repeats."""
    parts = []
    for count, components in enumerate(repeats, 1):
        at = place if len(repeats) == 1 else f"{place}[{count}]"
        for number, (component, called) in enumerate(zip_longest(components, names[: len(components)], fillvalue=""), 1):
            if component:
                parts.append(Node(f"{at}.{number}", called, brief(plain(component))))
    return Node(place, name, brief(plain(text)), tuple(parts) if len(parts) > 1 else ())


# -- HL7 -------------------------------------------------------------------------------------------------------------


def _of_hl7(lines: Sequence[str]) -> Iterator[Node]:
    message: Any = hl7.parse("\r".join(lines))
    header = er7.parse(lines[0]).segments[0]
    plain = partial(er7.unescape, delimiters=header.delimiters)
    version = header.component(12).strip()
    for segment in message:
        name = shown(str(segment[0])[:3])
        fields = _fields_of(name, version if version in _VERSIONS else _USUAL)
        parts = []
        for number, field in enumerate(segment):
            if number and str(field):
                called, names = fields.get(number, ("", ()))
                if name == "MSH" and number < 3:  # the delimiters themselves
                    parts.append(Node(f"MSH-{number}", called, shown(str(field))))
                    continue
                repeats = [[one] if isinstance(one, str) else [str(part) for part in one] for one in field]
                parts.append(_field(f"{name}-{number}", called, str(field), repeats, names, plain))
        yield Node("", "", brief(str(segment), 80), tuple(parts))


@lru_cache(maxsize=512)
def _fields_of(segment: str, version: str) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Of each field of a segment its name and the names of its components, by the tables of that version (hl7apy)."""
    try:
        fields = load_reference(segment, "Segment", version)[1]
    except (ChildNotFound, UnsupportedVersion, KeyError, TypeError):
        return {}
    return {number: (_called(field[1]), _components(field[1])) for number, field in enumerate(fields, 1)}


def _components(reference: Any) -> tuple[str, ...]:
    return tuple(_called(part[1]) for part in reference[1]) if reference[0] == "sequence" else ()


def _called(reference: Any) -> str:
    return str(reference[3] or "").replace("_", " ").capitalize()


# -- ASTM ------------------------------------------------------------------------------------------------------------


def _of_records(lines: Sequence[str]) -> Iterator[Node]:
    bar, repeat, component = "|", "\\", "^"
    for line in lines:
        record = _FRAME.sub("", line).lstrip("01234567 ")
        letter = record[:1].upper()
        if letter == "H" and len(record) > 4 and not record[1].isalnum():
            bar, repeat, component = record[1], record[2], record[3]
        if letter not in _RECORDS or record[1:2] not in ("", bar):
            yield Node("", "", brief(line))
            continue
        parts = []
        for number, (text, name) in enumerate(zip_longest(record.split(bar), _RECORDS[letter].split("|"), fillvalue=""), 1):
            if text:
                whole = (letter, number) == ("H", 2)  # the delimiters themselves
                repeats = [] if whole else [one.split(component) for one in text.split(repeat)]
                parts.append(_field(f"{letter}-{number}", name.capitalize(), text, repeats))
        yield Node("", "", brief(record, 80), tuple(parts))
