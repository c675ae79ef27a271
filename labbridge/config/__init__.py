"""labbridge.toml becomes typed, frozen settings; a mistake is named with file, line, key path and remedy.

In comes one TOML file; out come ``Settings``, or a ``ConfigError`` with every mistake that could be found. Paths and
the SQLite URL are made absolute from the folder of the file. Nothing here opens a port, a database or a profile, and
no message shows a secret.

``settings`` says what may be written, ``reading`` reads it, ``checks`` sees whether it fits together.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from labbridge.config.checks import mistakes
from labbridge.config.reading import KeyPath, Mistake, Reader, dotted, duration, line_of, locate
from labbridge.config.settings import (
    Address,
    Analyzer,
    Answers,
    Destination,
    OruSettings,
    RouteSettings,
    Settings,
    Timers,
    Verification,
    changes,
)

__all__ = [
    "Address",
    "Analyzer",
    "Answers",
    "Check",
    "ConfigError",
    "Destination",
    "KeyPath",
    "Mistake",
    "OruSettings",
    "Problem",
    "RouteSettings",
    "Settings",
    "Timers",
    "Verification",
    "changes",
    "duration",
    "load",
]

Check = Callable[[Settings], Iterable[Mistake]]


class Problem(NamedTuple):
    """One mistake: where it is (line 0: the whole file), what is wrong, what to do."""

    file: str
    line: int
    key_path: str
    message: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.key_path}: {self.message}" if self.key_path else self.message
        return f"{where}: {what} - {self.remedy}"


class ConfigError(Exception):
    """The configuration is wrong; ``problems`` says everything that is, its text one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)


def load(path: Path, checks: Sequence[Check] = ()) -> Settings:
    """The settings in a file; ``checks`` add what only the caller knows, such as the names of profiles.

    Raises ConfigError: a file or a TOML syntax that cannot be read alone; wrong keys and types together; then all
    that does not fit together, the caller's checks included.
    """
    text, data = _toml(path)
    reader = Reader(path.parent.resolve())
    settings: Settings | None = reader.struct(Settings, data, ())
    if settings is None:
        found = reader.mistakes
    else:
        found = [mistake for check in (mistakes, *checks) for mistake in check(settings)]
        if not found:
            return settings
    lines = locate(text)
    problems = [Problem(str(path), line_of(at, lines), dotted(at), what, remedy) for at, what, remedy in found]
    raise ConfigError(sorted(problems, key=lambda problem: problem.line))


def _toml(path: Path) -> tuple[str, dict[str, object]]:
    raw = b""
    text = ""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
        return text, tomllib.loads(text)
    except OSError as error:
        line, what = 0, f"cannot be read: {error.strerror}"
        remedy = "name the file with -c, or make one with `labbridge init`"
    except UnicodeDecodeError as error:
        line, what, remedy = raw.count(b"\n", 0, error.start) + 1, "not UTF-8", "save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        line, what = _syntax(str(error), text)
        remedy = "text stands in quotes, a heading in [ ] or [[ ]], and a key only once"
    raise ConfigError([Problem(str(path), line, "", what, remedy)])


def _syntax(error: str, text: str) -> tuple[int, str]:
    """The line and the message in tomllib's text: ``Invalid value (at line 3, column 8)``."""
    place = re.search(r" \(at line (\d+), column (\d+)\)$", error)
    if place is None:
        return text.count("\n") + 1, f"not TOML: {error}"
    return int(place[1]), f"not TOML: {error[: place.start()]} (column {place[2]})"
