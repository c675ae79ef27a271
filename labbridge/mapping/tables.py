"""CSV tables as a laboratory keeps them in a spreadsheet: decoded, checked cell by cell, every mistake kept.

A table is UTF-8, with or without byte order mark. GB18030, which a Chinese Excel writes, is recognised and named in a
notice. A mistake names file, line and column, and says what to do; reading goes on after it, so that all come at once.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

Names = Sequence[str]
Drafts = Mapping[Path, bytes]  # files that are not saved yet, read instead of what is there

NO_DRAFTS: Drafts = {}

_PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)


class Mistake(NamedTuple):
    """One mistake; ``line`` is 0 and ``column`` empty where it is the file's as a whole."""

    file: str
    line: int
    column: str
    message: str

    def line_of_text(self) -> str:
        """Where, in which column, what, and the remedy."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {f'column {self.column!r}: ' if self.column else ''}{self.message}"


class MappingError(Exception):
    """Tables have mistakes: ``errors`` are all of them; the text has a line for each."""

    def __init__(self, errors: Iterable[Mistake]) -> None:
        self.errors = tuple(dict.fromkeys(errors))
        super().__init__("\n".join(error.line_of_text() for error in self.errors))


class Row(dict[str, str]):
    """One line of a table: cells by column, blanks at their ends removed; a cell that is not there is empty."""

    def __init__(self, table: "Table", line: int, cells: Iterable[tuple[str, str]]) -> None:
        super().__init__(cells)
        self.table = table
        self.line = line

    def __missing__(self, column: str) -> str:
        return ""

    def wrong(self, column: str, message: str) -> None:
        """Notes a mistake."""
        self.table.wrong(self.line, column, message)

    def number(self, column: str) -> Decimal | None:
        """The number of a cell, None when it is empty; anything but plain decimals is a mistake."""
        text = self[column]
        if _PLAIN_NUMBER.fullmatch(text):
            return Decimal(text)
        if text:
            self.wrong(column, f"{text!r} is not a number; write digits with a decimal point, such as 3.5")
        return None

    def choice(self, column: str, *words: str) -> Any:
        """The word of a cell; the first of ``words`` when it is empty, or none of them, which is a mistake."""
        text = self[column] or words[0]
        if text not in words:
            self.wrong(column, f"{text!r} is not known here; write {', '.join(filter(None, words))}")
        return text if text in words else words[0]


class Table:
    """One CSV file, read; collects the mistakes that its readers find."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.columns: tuple[str, ...] = ()  # none where there is no such file
        self.rows: list[Row] = []
        self.errors: list[Mistake] = []
        self.notices: list[str] = []

    def wrong(self, line: int, column: str, message: str) -> None:
        """Notes a mistake."""
        self.errors.append(Mistake(self.file, line, column, message))

    @property
    def source(self) -> bytes:
        """The table's bytes, normalised: its name, then UTF-8, LF, no blanks at cells' ends, no empty lines."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([[Path(self.file).name], self.columns, *([row[c] for c in self.columns] for row in self.rows)])
        return text.getvalue().encode()


def read_table(
    name: str,
    folders: Sequence[Path],
    columns: Names,
    required: Names,
    *,
    extra: bool = False,
    optional: bool = False,
    drafts: Drafts = NO_DRAFTS,
) -> Table:
    """Reads a CSV file with a header line from the first folder that has it.

    Cells in ``required`` columns must not be empty. Columns beside the known ones are kept where ``extra`` is allowed.
    """
    path = next((folder / name for folder in folders if folder / name in drafts or (folder / name).is_file()), None)
    table = Table(str(path or name))
    if path is None:
        message = f"is in none of the mapping folders ({', '.join(map(str, folders))})"
        if optional:
            table.notices.append(f"{name} {message}")
        else:
            table.wrong(0, "", f"{message}; correct the name, or copy the packaged one there")
        return table
    try:
        text, encoding = decoded(drafts[path] if path in drafts else path.read_bytes())
        if encoding == "gb18030":
            table.notices.append(f"{table.file} is not UTF-8: it was read as GB18030; save it as CSV UTF-8 to be sure")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        table.columns = tuple(map(str.strip, next(reader, ())))
        _check_header(table, columns, required, extra)
        for cells in reader if not table.errors else ():
            row = Row(table, reader.line_num, zip(table.columns, map(str.strip, cells), strict=False))
            if any(cells[len(table.columns) :]):
                row.wrong("", "has more cells than the first line; put a cell that contains a comma in quotation marks")
            if any(row.values()):
                table.rows.append(row)
                for column in required:
                    if not row[column]:
                        row.wrong(column, "is empty; fill it in, or delete the line")
    except OSError as error:
        table.wrong(0, "", f"cannot be read ({error.strerror}); check that it may be read")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        table.wrong(line, "", "is neither UTF-8 nor GB18030; save it as CSV UTF-8")
    except csv.Error as error:
        line = table.rows[-1].line + 1 if table.rows else 2
        table.wrong(line, "", f"is not CSV ({error}); look from here on for a quotation mark that is not closed")
    return table


def _check_header(table: Table, columns: Names, required: Names, extra: bool) -> None:
    for name in required:
        if name not in table.columns:
            table.wrong(1, name, "is missing; the first line names the columns, separated by commas")
    for at, name in enumerate(table.columns):
        if name in table.columns[:at]:
            table.wrong(1, name, "is there twice; delete one of the two")
        elif name not in columns and not (extra and name):
            table.wrong(1, name, f"is not a column of this file; its columns are {', '.join(columns)}")


def decoded(data: bytes) -> tuple[str, str]:
    """A file's text and its encoding: ``utf-8``, ``utf-8-sig`` with a byte order mark, or ``gb18030``.

    Raises UnicodeDecodeError where it is none of these.
    """
    for encoding in ("utf-8-sig",) if data.startswith(codecs.BOM_UTF8) else ("utf-8", "gb18030"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError as error:
            wrong = error
    raise wrong


def check(*tables: Table) -> None:
    """Raises all the mistakes of some tables as one MappingError."""
    if errors := [error for table in tables for error in table.errors]:
        raise MappingError(errors)
