"""labbridge.toml becomes typed, frozen settings; a mistake is named with file, line, key path and remedy.

In comes one TOML file; out come ``Settings``, or a ``ConfigError`` with every mistake that could be found. Paths and
the SQLite URL are made absolute from the folder of the file. Nothing here opens a port, a database or a profile, and
no message shows a secret.

``settings`` says what may be written, ``reading`` reads it, ``checks`` sees whether it fits together.
"""

import re
import tomllib
from pathlib import Path

from labbridge.config.checks import mistakes
from labbridge.config.reading import Reader, dotted, duration, line_of, locate
from labbridge.config.settings import Address, Analyzer, Answers, Destination, Settings, Tls, changes

__all__ = [
    "Address",
    "Analyzer",
    "Answers",
    "ConfigError",
    "Destination",
    "Settings",
    "Tls",
    "changes",
    "duration",
    "load",
    "place",
]


class ConfigError(Exception):
    """The configuration is wrong: the text has a line for each mistake, with file, line, key path and remedy."""


def load(path: Path) -> Settings:
    """The settings in a file.

    Raises ConfigError: a file or a TOML syntax that cannot be read alone; wrong keys and types together; then all
    that does not fit together.
    """
    try:
        text = path.read_text("utf-8-sig")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror} - name it with -c, or make one with `labbridge init`"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 - save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        remedy = "text stands in quotes, a heading in [ ] or [[ ]], and a key only once"
        raise ConfigError(f"{path}{f':{line[1]}' if line else ''}: not TOML: {error} - {remedy}") from None
    reader = Reader(path.parent.resolve())
    settings: Settings | None = reader.struct(Settings, data, ())
    found = reader.mistakes if settings is None else list(mistakes(settings))
    if settings is not None and not found:
        return settings
    lines = locate(text)
    told = sorted((line_of(at, lines), dotted(at), what) for at, what in found)
    raise ConfigError("\n".join(f"{path}{f':{line}' if line else ''}: {at}: {what}" for line, at, what in told))


def place(path: Path, *at: str | int) -> str:
    """Where a key stands in a file that was loaded: how an error about it begins."""
    line = line_of(at, locate(path.read_text("utf-8-sig")))
    return f"{path}{f':{line}' if line else ''}: {dotted(at)}: "
