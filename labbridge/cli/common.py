"""What the commands share: the configuration, printing, failing with the right exit status."""

import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO
from zoneinfo import ZoneInfo

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from labbridge import config
from labbridge.config import Settings
from labbridge.model import named
from labbridge.showing import shown
from labbridge.store import Reader, StoreError

FAILED, USAGE, CONFIGURATION = 1, 2, 78

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", show_default="labbridge.toml")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, for programs.")]
DEFAULT_CONFIG = Path("labbridge.toml")

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, status: int = FAILED) -> NoReturn:
    """Says what went wrong and ends with this exit status."""
    errors.print("\n".join(map(shown, message.split("\n"))), style="red" if errors.is_terminal else None, markup=False)
    raise typer.Exit(status)


def as_text(text: str, style: str = "") -> Text:
    """What came from outside, for the screen."""
    return Text(shown(text), style)


def settings_of(path: Path) -> Settings:
    """The configuration, or exit status 78 with everything that is wrong with it."""
    try:
        return config.load(path)
    except config.ConfigError as error:
        fail(str(error), CONFIGURATION)


def print_json(value: Any, to: TextIO | None = None) -> None:
    """One JSON object on a line of its own, which a terminal may show."""
    line = msgspec.json.encode(named(value)).decode()
    if not line.isprintable():
        line = "".join(c if c.isprintable() else re.sub("(....)", r"\\u\1", c.encode("utf-16-be").hex()) for c in line)
    print(line, file=to or sys.stdout, flush=to is not None)


def local(microseconds: int, settings: Settings) -> str:
    """A stored time as the laboratory's clock shows it."""
    return datetime.fromtimestamp(microseconds / 1e6, ZoneInfo(settings.site.timezone)).strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def reading(settings: Settings) -> Iterator[Reader]:
    """The store, for reading; exit status 1 where it cannot be read."""
    try:
        with closing(Reader(settings.store.url)) as reader:
            yield reader
    except StoreError as error:
        fail(str(error))
