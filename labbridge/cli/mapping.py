"""The tables of the mappings at the command line: list, show, save, set, and what is not mapped."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from labbridge import mapfiles, revision, unmapped
from labbridge.batch import past_of
from labbridge.cli.acting import Because, perform
from labbridge.cli.common import (
    CONFIGURATION,
    DEFAULT_CONFIG,
    USAGE,
    AsJson,
    ConfigFile,
    as_text,
    console,
    fail,
    local,
    print_json,
    reading,
    settings_of,
)
from labbridge.config import Settings
from labbridge.mapfiles import MapError, MapFile
from labbridge.mapping.sheet import Sheet, SheetError
from labbridge.mapping.tables import decoded
from labbridge.showing import shown

Name = Annotated[str, typer.Argument(help="A table as `labbridge map list` names it, such as tests.csv.")]


def list_(json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """The tables that are in force: whose they are, where they are, which analyzers use them."""
    table = _table("table", "", "analyzers", "file")
    for file in mapfiles.files(settings_of(config)).values():
        whose = "own" if file.is_own else "packaged" if file.data else "none yet"
        about = {"file": file.name, "whose": whose, "analyzers": file.analyzers, "path": str(file.path), "known": file.known}
        if json:
            print_json(about)
        else:
            table.add_row(as_text(file.name, "bold"), whose, as_text(", ".join(file.analyzers)), as_text(str(file.path)))
    if not json:
        console.print(table)


def show(file: Name, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Print a table as it is: `labbridge map show tests.csv > tests.csv` gives a copy to edit."""
    text = _text(_find(settings_of(config), file))
    if sys.stdout.isatty():
        text = "".join(f"{shown(line)}\n" for line in text.splitlines())
    sys.stdout.write(text)


def save(
    file: Name,
    source: Annotated[Path, typer.Argument(help="The file with the new text.")],
    reason: Because = "",
    known: Annotated[str, typer.Option("--known", help="SHA-256 of the table that was edited: refused if it is another now.")] = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Check a table's new text as at the start, save it in the laboratory's folder, and put it in force."""
    found = _find(settings_of(config), file)
    try:
        text = decoded(source.read_bytes())[0]
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{source}: {error.strerror if isinstance(error, OSError) else 'neither UTF-8 nor GB18030'}", USAGE)
    perform(config, "map", file=found.name, text=text, known=known or found.known, reason=reason)


def set_(
    analyzer: Annotated[str, typer.Argument(help="The analyzer's name in the configuration.")],
    code: Annotated[str, typer.Argument(help="Its code, as `labbridge map unmapped` shows it.")],
    test: Annotated[str, typer.Argument(help="The laboratory's test; none with --action ignore or hold.")] = "",
    unit: Annotated[str, typer.Option("--unit", "-u", help="The unit as the analyzer sends it; * for any.")] = "",
    specimen: Annotated[str, typer.Option("--specimen", help="Only for this type of specimen.")] = "",
    action: Annotated[str, typer.Option("--action", help="report, ignore, hold or attach.")] = "",
    factor: Annotated[str, typer.Option("--factor", help="The number is multiplied with it.")] = "",
    reads_as: Annotated[str, typer.Option("--reads-as", help="The real unit, where none or a wrong one is sent.")] = "",
    comment: Annotated[str, typer.Option("--comment", help="For people.")] = "",
    reason: Because = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Map one code of one analyzer: add its line to the analyzer's table, or change the line that is there."""
    settings = settings_of(config)
    name = next((one.code_map for one in settings.analyzers if one.name == analyzer), None)
    if name is None:
        fail(f"no analyzer {analyzer}; there are: {', '.join(one.name for one in settings.analyzers)}", USAGE)
    found = _find(settings, f"{name}.csv")
    line = {"code": code, "analyzer_unit": unit, "specimen": specimen, "test": test, "action": action}
    more = {"factor": factor, "reads_as": reads_as, "comment": comment}
    try:
        sheet = Sheet(_text(found), found.name)
    except SheetError as error:
        fail(str(error))
    sheet.put(line | {column: value for column, value in more.items() if value}, unmapped.KEYS)
    perform(config, "map", file=found.name, text=sheet.text, known=found.known, reason=reason)


def list_unmapped(json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """The codes that are held for want of a line in a map: examples, how much waits, and tests that may be meant."""
    settings = settings_of(config)
    try:
        compiled, _ = revision.build(settings, config)
    except revision.RevisionError as error:
        fail(str(error), CONFIGURATION)
    with reading(settings) as reader:
        held = (past_of(row) for row in reader.held_reports())
        found = unmapped.seen(held, {name: rules.codes for name, rules in compiled.analyzers.items()})
    suggest = unmapped.Suggester(compiled.catalogue).suggest
    table = _table("analyzer", "code", "unit", "name", "why", "reports", "last", "examples", "perhaps")
    for one in found:
        tests = suggest(one.code, one.name, one.unit)
        if json:
            print_json(msgspec.structs.asdict(one) | {"suggestions": [msgspec.structs.asdict(test) for test in tests]})
            continue
        why = "mapped: release-mapped" if one.mapped else one.why
        cells = [one.analyzer, one.code, one.unit, one.name, why, str(one.reports), local(int(one.last * 1e6), settings)]
        cells += [", ".join(one.examples), ", ".join(test.test for test in tests)]
        table.add_row(*map(as_text, cells))
    if not json:
        console.print(table if found else "every code is mapped")


def _find(settings: Settings, name: str) -> MapFile:
    try:
        return mapfiles.find(settings, name)
    except MapError as error:
        fail(str(error), USAGE)


def _text(file: MapFile) -> str:
    try:
        return file.text
    except MapError as error:
        fail(str(error))


def _table(*columns: str) -> Any:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
