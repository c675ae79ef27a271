"""CSV tables as a laboratory keeps them in a spreadsheet: decoded, checked cell by cell, every mistake kept.

A table is UTF-8, with or without byte order mark. GB18030, which a Chinese Excel writes, is recognised and named in a
notice. A mistake names file, line and column, and says what to do; reading goes on after it, so that all come at once.
"""

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

_PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)


class MappingError(Exception):
    """Tables have mistakes: the first one's file, line, column and message, and all of them in ``errors``.

    ``line`` is 0 and ``column`` empty where the mistake is the file's as a whole. The text has a line per mistake.
    """

    def __init__(self, file: str, line: int, column: str, message: str, others: Sequence["MappingError"] = ()) -> None:
        super().__init__(file, line, column, message)
        self.file = file
        self.line = line
        self.column = column
        self.message = message
        self._others = tuple(others)

    @property
    def errors(self) -> tuple["MappingError", ...]:
        """Every mistake found, this one first."""
        return (self, *self._others)

    def __str__(self) -> str:
        return "\n".join(error.line_of_text() for error in self.errors)

    def line_of_text(self) -> str:
        """This mistake alone: where, in which column, what, and the remedy."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {f'column {self.column!r}: ' if self.column else ''}{self.message}"


class Row(msgspec.Struct, frozen=True):
    """One line of a table: cells by column, blanks at their ends removed."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


class Table:
    """One CSV file, read; collects the mistakes that its readers find."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.columns: tuple[str, ...] = ()
        self.rows: list[Row] = []
        self.errors: list[MappingError] = []
        self.notices: list[str] = []

    def wrong(self, line: int, column: str, message: str) -> None:
        """Notes a mistake."""
        self.errors.append(MappingError(self.file, line, column, message))

    def number(self, row: Row, column: str) -> Decimal | None:
        """The number of a cell, None when it is empty; anything but plain decimals is a mistake."""
        text = row[column]
        if text and not _PLAIN_NUMBER.fullmatch(text):
            self.wrong(row.line, column, f"{text!r} is not a number; write digits with a decimal point, such as 3.5")
            return None
        return Decimal(text) if text else None

    def choice(self, row: Row, column: str, allowed: Collection[str], default: str) -> str:
        """The word of a cell, ``default`` when it is empty or not one of those allowed."""
        text = row[column]
        if text and text not in allowed:
            self.wrong(row.line, column, f"{text!r} is not known here; write {', '.join(sorted(allowed))}")
            return default
        return text or default

    def unique(self, column: str) -> Iterable[Row]:
        """The rows whose cell in ``column`` is given and not given before; the others are mistakes."""
        seen: dict[str, int] = {}
        for row in self.rows:
            name = row[column]
            if not name:
                self.wrong(row.line, column, "is empty; give it a name or delete the line")
            elif name in seen:
                self.wrong(row.line, column, f"{name!r} is already in line {seen[name]}; delete one of the two")
            else:
                seen[name] = row.line
                yield row

    @property
    def source(self) -> bytes:
        """The table's bytes, normalised: UTF-8, LF, minimal quotes, no blanks at cells' ends, no empty lines."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([row[column] for column in self.columns] for row in self.rows)
        return text.getvalue().encode()


def read_table(path: Path, columns: Sequence[str], required: Sequence[str], *, extra: bool = False) -> Table:
    """Reads a CSV file with a header line; ``extra`` columns beside the known ones are kept, else mistakes."""
    table = Table(str(path))
    try:
        text = _decode(path.read_bytes(), table)
    except OSError as error:
        table.wrong(0, "", f"cannot be read ({error.strerror}); check that it is there and may be read")
        return table
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                _take(table, line, [cell.strip() for cell in cells], columns, required, extra)
            if table.errors and not table.rows:
                break
            line = reader.line_num + 1
    except csv.Error as error:
        table.wrong(line, "", f"is not CSV ({error}); look for a quotation mark that is not closed")
    if not table.columns and not table.errors:
        table.wrong(0, "", f"is empty; its first line names the columns {', '.join(columns)}")
    return table


def _take(table: Table, line: int, cells: list[str], columns: Sequence[str], required: Sequence[str], extra: bool) -> None:
    if not table.columns:
        table.columns = tuple(cells)
        for name in required:
            if name not in cells:
                table.wrong(line, name, f"is missing; the first line names the columns, separated by commas: {','.join(columns)}")
        for at, name in enumerate(cells):
            if name in cells[:at]:
                table.wrong(line, name, "is there twice; delete one of the two")
            elif name not in columns and not (extra and name):
                table.wrong(line, name, f"is not a column of this file; its columns are {', '.join(columns)}")
    elif any(cells[len(table.columns) :]):
        table.wrong(line, "", "has more cells than the first line; put a cell that contains a comma in quotation marks")
    else:
        table.rows.append(Row(line, dict(zip(table.columns, cells, strict=False))))


def _decode(data: bytes, table: Table) -> str:
    if b"\0" in data:
        table.wrong(0, "", "is not a text in UTF-8 (perhaps UTF-16 or a workbook); save it as CSV UTF-8")
        return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        table.wrong(line, "", "is neither UTF-8 nor GB18030; save it as CSV UTF-8")
        return ""
    table.notices.append(f"{table.file} is not UTF-8: it was read as GB18030; save it as CSV UTF-8 to be sure")
    return text


def check(*tables: Table) -> None:
    """Raises all the mistakes of some tables as one MappingError."""
    errors = list({error.line_of_text(): error for table in tables for error in table.errors}.values())
    if errors:
        first = errors[0]
        raise MappingError(first.file, first.line, first.column, first.message, errors[1:])


def find(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of that name in the first folder that has one."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
