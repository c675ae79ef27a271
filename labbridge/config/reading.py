"""From parsed TOML to structs, every mistake collected; and from a key path to its line.

A table is read key by key, so that one wrong value hides no other. Nothing is looked at together here: that is the
work of ``checks``.
"""

import difflib
import ipaddress
import re
import urllib.parse
import zoneinfo
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from labbridge.config.settings import SQLITE, Address, Charset, Count, DatabaseUrl, Duration, Network, Regex, Setting, Wait, Zone

KeyPath = tuple[str | int, ...]
Mistake = tuple[KeyPath, str, str]  # where, what is wrong, what to write instead


class Reader:
    """Reads structs from parsed TOML; ``mistakes`` has what was wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mistakes: list[Mistake] = []

    def struct(self, kind: Any, data: Any, at: KeyPath) -> Any:
        """One table as ``kind``, or None when anything in it is wrong."""
        if not isinstance(data, dict):
            return self._wrong(at, f"expected a table, got {_shown(data)}", f"write [{dotted(at)}]")
        known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        before = len(self.mistakes)
        for key in data:
            if key not in known:
                self._wrong((*at, key), "unknown key", _known_instead(key, known))
        values = {}
        for key, field in known.items():
            if key in data:
                values[field.name] = self._value(field.type, data[key], (*at, key))
            elif _is_table(field.type):
                values[field.name] = self.struct(field.type, {}, (*at, key))
            elif field.required:
                self._wrong((*at, key), "missing", f"add {key} = {_LEAVES[field.type].example}")
            elif field.type in (Path, DatabaseUrl):
                values[field.name] = self._value(field.type, str(field.default), (*at, key))
        return kind(**values) if len(self.mistakes) == before else None

    def _value(self, kind: Any, raw: Any, at: KeyPath) -> Any:
        choices = get_args(kind)
        if NoneType in choices:
            kind = next(choice for choice in choices if choice is not NoneType)
        if kind in _LEAVES:
            return self._leaf(kind, raw, at)
        if _is_table(kind):
            return self.struct(kind, raw, at)
        if get_origin(kind) is Literal:
            if raw in choices:
                return raw
            words = " or ".join(f'"{choice}"' for choice in choices)
            return self._wrong(at, f"expected {words}, got {_shown(raw)}", f'write e.g. "{choices[0]}"')
        if get_origin(kind) is tuple:
            if isinstance(raw, list):
                return tuple(self._value(choices[0], item, (*at, index)) for index, item in enumerate(raw))
            example = f"[[{dotted(at)}]]" if _is_table(choices[0]) else '["...", "..."]'
            return self._wrong(at, f"expected a list, got {_shown(raw)}", f"write {example}")
        if isinstance(raw, dict):
            return {key: self._leaf(str, item, (*at, key)) for key, item in raw.items()}
        return self._wrong(at, f"expected a table, got {_shown(raw)}", 'write e.g. {"OBR-3" = "{specimen.id}"}')

    def _leaf(self, kind: Any, raw: Any, at: KeyPath) -> Any:
        leaf = _LEAVES[kind]
        what = ""
        if type(raw) is leaf.written:
            try:
                return leaf.read(raw, self.folder)
            except ValueError as error:
                what = str(error)
        what = what or f"expected {leaf.expected}, got {_shown(raw, secret=kind is DatabaseUrl)}"
        return self._wrong(at, what, f"write e.g. {leaf.example}")

    def _wrong(self, at: KeyPath, message: str, remedy: str) -> None:
        self.mistakes.append((at, message, remedy))


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Setting) and kind is not Address


_NOT_YET = {
    "serial": "serial lines are not supported yet: use a serial device server, with listen or connect",
    "folder": "folders are not supported yet: let the analyzer send over TCP, with listen or connect",
    "tls": "TLS is not supported yet: keep the link on a network of its own, or in a tunnel",
}


def _known_instead(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return _NOT_YET.get(key) or (f'did you mean "{close[0]}"?' if close else f"known are: {', '.join(known)}")


def _shown(raw: Any, *, secret: bool = False) -> str:
    """A value as a person wrote it, without what may be a password."""
    if isinstance(raw, str):
        if (secret or "@" in raw or "://" in raw) and not raw.startswith("sqlite:") and (":" in raw or "@" in raw):
            raw = f"{raw.partition(':')[0]}:***" if ":" in raw else "***"
        return f'"{raw[:60]}"'
    if isinstance(raw, bool):
        return str(raw).lower()
    return "a list" if isinstance(raw, list) else "a table" if isinstance(raw, dict) else str(raw)


# -- how each kind of value is written; a ValueError without text gets the usual message ---------------------------


def duration(text: str) -> float:
    """Seconds of a duration: digits, perhaps a decimal point, and one of ms, s, m, h, d; raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", text)
    if match is None:
        raise ValueError
    number, unit = float(match[1]), match[2]
    return number / 1000 if unit == "ms" else number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def _wait(text: str, _: Path) -> float | None:
    if text == "send":
        return None
    if not text.startswith("wait:"):
        raise ValueError
    return duration(text.removeprefix("wait:"))


def _count(number: int, _: Path) -> int:
    if not 1 <= number <= 1000:
        raise ValueError
    return number


def _address(text: str, _: Path) -> Address:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+)):([0-9]+)", text)
    if match is None:
        raise ValueError
    if not 1 <= int(match[3]) <= 65535:
        raise ValueError(f"port {match[3]} is not between 1 and 65535")
    return Address(str(ipaddress.IPv6Address(match[1])) if match[1] else match[2], int(match[3]))


def _regex(text: str, _: Path) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f'"{text}" is not a regular expression: {error}') from error
    return text


def _network(text: str, _: Path) -> str:
    return str(ipaddress.ip_network(text))


def _zone(text: str, _: Path) -> str:
    try:
        return zoneinfo.ZoneInfo(text).key
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'unknown time zone "{text}"') from error


def _charset(text: str, _: Path) -> str:
    try:
        "".encode(text)
    except (LookupError, ValueError) as error:
        raise ValueError(f'unknown character set "{text}"') from error
    return text


def _database(text: str, folder: Path) -> str:
    if text.startswith(SQLITE):
        name = text.removeprefix(SQLITE)
        if not name or name == ":memory:" or "?" in name:
            raise ValueError
        return SQLITE + str(folder / name)
    scheme, _, rest = text.partition("://")
    try:
        parts = urllib.parse.urlsplit("//" + rest)
        right = parts.port != 0 and scheme in ("postgresql", "postgresql+psycopg") and len(parts.path) > 1
    except ValueError:  # its text may show a piece of the password
        right = False
    if not right:
        raise ValueError
    return f"postgresql+psycopg://{rest}"


class _Leaf(NamedTuple):
    """How one kind of value is written in TOML, and read."""

    written: type
    expected: str
    example: str
    read: Callable[[Any, Path], Any]


_DATABASES = '"sqlite:///labbridge.db" or "postgresql+psycopg://user:password@host/labbridge"'
_LEAVES: dict[Any, _Leaf] = {
    str: _Leaf(str, "text in quotes", '"..."', lambda raw, _: raw),
    bool: _Leaf(bool, "true or false", "true", lambda raw, _: raw),
    Path: _Leaf(str, "a path in quotes", '"mappings"', lambda raw, folder: folder / raw),
    Duration: _Leaf(str, "a duration", '"30s", "10m" or "72h"', lambda raw, _: duration(raw)),
    Wait: _Leaf(str, '"send" or a wait', '"wait:30m"', _wait),
    Count: _Leaf(int, "a whole number from 1 to 1000", "4", _count),
    Address: _Leaf(str, '"host:port"', '"127.0.0.1:5001"', _address),
    Network: _Leaf(str, "a network or an address", '"192.168.10.0/24"', _network),
    Regex: _Leaf(str, "a regular expression", "'^[0-9]{8,14}$', in single quotes", _regex),
    Zone: _Leaf(str, "a time zone", '"Asia/Shanghai"', _zone),
    Charset: _Leaf(str, "a character set", '"UTF-8" or "GB18030"', _charset),
    DatabaseUrl: _Leaf(str, "the URL of an SQLite file or a PostgreSQL database", _DATABASES, _database),
}


# -- lines ---------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r'#[^\n]*|"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|[\[{]|[\]}]|\n', re.DOTALL)
_KEY = r'"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|[\w-]+'
_HEAD = re.compile(rf"\s*(\[\[?)?\s*((?:{_KEY})(?:\s*\.\s*(?:{_KEY}))*)")


def locate(text: str) -> dict[KeyPath, int]:
    """The line of every key and heading of a valid TOML text; keys inside inline tables have their statement's."""
    found: dict[KeyPath, int] = {}
    count: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for line, statement in _statements(text):
        head = _HEAD.match(statement)
        if head is None:
            continue
        keys = [key.strip("\"'") for key in re.findall(_KEY, head[2])]
        at = () if head[1] else table
        for index, key in enumerate(keys):
            at = (*at, key)
            found.setdefault(at, line)
            if at in count and not (head[1] == "[[" and index == len(keys) - 1):
                at = (*at, count[at])
        if head[1] == "[[":
            count[at] = count.get(at, -1) + 1
            at = (*at, count[at])
            found[at] = line
        if head[1]:
            table = at
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with the number of its first line: what ends at a line break outside of brackets and strings."""
    start, line, depth = 0, 1, 0
    for token in _TOKEN.finditer(text + "\n"):
        sign = token.group()
        if sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        elif sign == "\n" and depth == 0:
            yield line, text[start : token.start()]
            line += text.count("\n", start, token.end())
            start = token.end()


def line_of(at: KeyPath, lines: dict[KeyPath, int]) -> int:
    """The line of a key path, or of the nearest thing around it that was written; 0 when nothing was."""
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 0)


def dotted(at: KeyPath) -> str:
    """A key path for people: analyzer[0].listen."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at).removeprefix(".")
