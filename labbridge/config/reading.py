"""From parsed TOML to structs, every mistake collected; and from a key path to its line.

A table is read key by key, so that one wrong value hides no other. Nothing is looked at together here: that is the
work of ``checks``.
"""

import difflib
import ipaddress
import json
import re
import tomllib
import urllib.parse
import zoneinfo
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import msgspec

from labbridge.config import settings as kinds
from labbridge.config.settings import SQLITE, Address, Setting
from labbridge.formats import charset

KeyPath = tuple[str | int, ...]
Mistake = tuple[KeyPath, str]  # where; what is wrong, and what to write instead


class Reader:
    """Reads structs from parsed TOML; ``mistakes`` has what was wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mistakes: list[Mistake] = []

    def struct(self, kind: Any, data: Any, at: KeyPath) -> Any:
        """One table as ``kind``, or None when anything in it is wrong."""
        if not isinstance(data, dict):
            return self._wrong(at, f"expected a table [{dotted(at)}], got {_shown(data)}")
        known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        before = len(self.mistakes)
        for key in data.keys() - known.keys():
            close = difflib.get_close_matches(key, known, 1)
            remedy = f'did you mean "{close[0]}"?' if close else f"known are: {', '.join(known)}"
            self._wrong((*at, key), f"unknown key - {remedy}")
        values = {}
        for key, field in known.items():
            if key in data:
                values[field.name] = self._value(field.type, data[key], (*at, key))
            elif _is_table(field.type):
                values[field.name] = self.struct(field.type, {}, (*at, key))
            elif field.required:
                self._wrong((*at, key), f"missing - add {_LEAVES[field.type][1]}")
            elif field.type in (Path, kinds.DatabaseUrl):
                values[field.name] = self._value(field.type, str(field.default), (*at, key))
        return kind(**values) if len(self.mistakes) == before else None

    def _value(self, kind: Any, raw: Any, at: KeyPath) -> Any:
        choices, origin = get_args(kind), get_origin(kind)
        if kind in _LEAVES:
            return self._leaf(kind, raw, at)
        if kind == kinds.Charsets:
            if isinstance(raw, list) and raw:
                return tuple(self._value(kinds.Charset, item, (*at, index)) for index, item in enumerate(raw))
            return (self._leaf(kinds.Charset, raw, at),)
        if kind is kinds.SerialSettings and isinstance(raw, str):
            raw = {"device": raw}
        if _is_table(kind):
            return self.struct(kind, raw, at)
        if NoneType in choices:
            return self._value(choices[0], raw, at)
        if origin is Literal:
            words = " or ".join(json.dumps(choice) for choice in choices)
            return raw if raw in choices else self._wrong(at, f"expected {words}, got {_shown(raw)}")
        if origin is tuple and isinstance(raw, list):
            return tuple(self._value(choices[0], item, (*at, index)) for index, item in enumerate(raw))
        if origin is dict and isinstance(raw, dict):
            return {self._leaf(choices[0], key, (*at, key)): self._leaf(choices[1], raw[key], (*at, key)) for key in raw}
        like = '{"OBR-3" = "..."}' if origin is dict else f"[[{dotted(at)}]]" if _is_table(choices[0]) else '["...", "..."]'
        return self._wrong(at, f"expected {like}, got {_shown(raw)}")

    def _leaf(self, kind: Any, raw: Any, at: KeyPath) -> Any:
        written, expected, read = _LEAVES[kind]
        detail = ""
        if type(raw) is written:
            try:
                value = read(raw)
                if kind is kinds.DatabaseUrl and value.startswith(SQLITE):
                    return SQLITE + str(self.folder / value.removeprefix(SQLITE))
                return self.folder / value if kind is Path else value
            except (ValueError, LookupError, OSError, re.error) as error:
                detail = f" ({error})" if str(error) else ""
        return self._wrong(at, f"expected {expected}, got {'another' if kind is kinds.DatabaseUrl else _shown(raw)}{detail}")

    def _wrong(self, at: KeyPath, message: str) -> None:
        self.mistakes.append((at, message))


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Setting)


def _shown(raw: Any) -> str:
    """A value as a person wrote it, unless it may hold a password."""
    text = json.dumps(raw, ensure_ascii=False, default=str)
    return "***" if "@" in text or "://" in text else text[:60]


# -- how each kind of value is written -----------------------------------------------------------------------------


def duration(text: str) -> float:
    """Seconds of a duration: digits, perhaps a decimal point, and one of ms, s, m, h, d; raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", text)
    if match is None or not float(match[1]):
        raise ValueError
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _wait(text: str) -> float | None:
    word, _, wait = text.partition(":")
    return None if text == "send" else duration(wait if word == "wait" else "")


def _count(number: int) -> int:
    if not 1 <= number <= 1000:
        raise ValueError
    return number


def _frame_size(number: int) -> int:
    if not 1 <= number <= 63_993:
        raise ValueError
    return number


def _size(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,5})(KiB|MiB)", text)
    size = int(match[1]) << (10 if match[2] == "KiB" else 20) if match else 0
    if not 1 << 10 <= size <= 1 << 30:
        raise ValueError
    return size


def _address(text: str) -> Address:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+)):([0-9]{1,5})", text)
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError
    return Address(str(ipaddress.IPv6Address(match[1])) if match[1] else match[2], int(match[3]))


def _database(text: str) -> str:
    if text.startswith(SQLITE):
        if text.removeprefix(SQLITE) in ("", ":memory:") or "?" in text:
            raise ValueError
        return text
    scheme, _, rest = text.partition("://")
    try:
        parts = urllib.parse.urlsplit("//" + rest)
        right = parts.port != 0 and scheme in ("postgresql", "postgresql+psycopg") and len(parts.path) > 1
    except ValueError:  # its text may show a piece of the password
        right = False
    if not right:
        raise ValueError
    return f"postgresql+psycopg://{rest}"


def _fitting(pattern: str, text: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError
    return text


# The type in TOML, what is expected, and what makes it a value; its ValueErrors without text are said by "expected".
_LEAVES: dict[Any, tuple[type, str, Callable[[Any], Any]]] = {
    str: (str, "text in quotes", str),
    bool: (bool, "true or false", bool),
    Path: (str, "a path in quotes", str),
    kinds.Name: (str, 'a name of letters, digits, . _ - such as "analyzer-1"', partial(_fitting, r"[\w.-]{1,40}")),
    kinds.Duration: (str, 'a duration such as "30s", "10m" or "72h"', duration),
    kinds.Wait: (str, '"send" or a wait such as "wait:30m"', _wait),
    kinds.Count: (int, "a whole number from 1 to 1000", _count),
    kinds.Size: (str, 'a size from 1 KiB to 1 GiB, such as "16MiB" or "512KiB"', _size),
    kinds.FrameSize: (int, "a whole number from 1 to 63993", _frame_size),
    Address: (str, 'an address such as "127.0.0.1:5001"', _address),
    kinds.Network: (str, 'a network or an address such as "192.168.10.0/24"', lambda text: str(ipaddress.ip_network(text))),
    kinds.Regex: (str, "a regular expression in single quotes such as '^[0-9]{8,14}$'", lambda text: re.compile(text).pattern),
    kinds.Zone: (str, 'a time zone such as "Asia/Shanghai"', lambda text: zoneinfo.ZoneInfo(text).key),
    kinds.Charset: (str, 'a character set such as "UTF-8" or "GB18030"', lambda text: charset.codec(text) and text),
    kinds.Field: (str, 'a field of HL7 such as "OBR-3"', partial(_fitting, r"[A-Z][A-Z0-9]{2}-[1-9][0-9]?")),
    kinds.Segment: (str, 'a segment of HL7 such as "ZLB|{specimen.id}"', partial(_fitting, r"[A-Z][A-Z0-9]{2}\|.*")),
    kinds.DatabaseUrl: (str, '"sqlite:///labbridge.db" or "postgresql+psycopg://user:password@host/labbridge"', _database),
}


# -- lines ---------------------------------------------------------------------------------------------------------


def locate(text: str) -> dict[KeyPath, int]:
    """The line of every key and heading of a valid TOML text, which tomllib reads here one statement after the other.

    Keys inside inline tables have their statement's.
    """
    found: dict[KeyPath, int] = {}
    last: dict[KeyPath, int] = {}  # of each array of tables: the index of its last one
    table: KeyPath = ()
    statement = ""
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        try:
            value: Any = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:  # it goes on in the next line
            continue
        start, heading, statement = number + 1 - statement.count("\n"), statement.lstrip().startswith("["), ""
        at = () if heading else table
        while isinstance(value, dict) and value:
            key, value = next(iter(value.items()))
            at = (*at, key)
            found.setdefault(at, start)
            if isinstance(value, list) and heading:
                last[at] = last.get(at, -1) + 1
                found[*at, last[at]] = start
            if at in last:
                at = (*at, last[at])
        table = at if heading else table
    return found


def line_of(at: KeyPath, lines: dict[KeyPath, int]) -> int:
    """The line of a key path, or of the nearest thing around it that was written; 0 when nothing was."""
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 0)


def dotted(at: KeyPath) -> str:
    """A key path for people: analyzer[0].listen."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at).removeprefix(".")
