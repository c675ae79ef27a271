"""A CSV table that is edited without touching what is not edited: every byte of the rest stays as it was.

A spreadsheet's quotation marks, blanks, line ends, empty lines, columns that nobody here knows and the encoding are the
laboratory's own. Only a cell that gets another value is written anew.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from labbridge.mapping.tables import Mistake, decoded

_CELL = re.compile(r'"(?:[^"]++|"")*+"|[^,\r\n]*')
_MUST_BE_QUOTED = re.compile(r'[,"\r\n]')


class SheetError(Exception):
    """A text is not CSV; ``mistake`` says where."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.line_of_text())
        self.mistake = mistake


class _Record:
    """One record as it is written: the texts between its commas, and its line end."""

    def __init__(self, cells: list[str], end: str) -> None:
        self.cells, self.end = cells, end

    @property
    def text(self) -> str:
        return ",".join(self.cells) + self.end

    @property
    def values(self) -> list[str]:
        return [_value(cell) for cell in self.cells]


class Sheet:
    """One table being edited. A row has a number of its own that stays the same whatever becomes of the others.

    Raises SheetError where a text is not CSV. Rows are what has a value in any cell; empty lines stay, and are no rows.
    """

    def __init__(self, text: str, file: str = "") -> None:
        first, *others = list(_records(text, file)) or [_Record([""], "")]
        self._head = first
        self._records = dict(enumerate(others, 1))
        self._next = len(others) + 1
        self._newline = first.end or "\n"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, from left to right."""
        return tuple(self._head.values) if any(self._head.values) else ()

    @property
    def text(self) -> str:
        """The table as it is now."""
        return self._head.text + "".join(record.text for record in self._records.values())

    @property
    def rows(self) -> dict[int, dict[str, str]]:
        """The values of every row, by its number and the names of the columns."""
        columns = self.columns
        found = {number: record.values for number, record in self._records.items()}
        return {
            number: dict(zip(columns, [*values, *[""] * (len(columns) - len(values))], strict=False))
            for number, values in found.items()
            if any(values)
        }

    @property
    def numbers(self) -> tuple[int, ...]:
        """The rows and the empty lines, in their order."""
        return tuple(self._records)

    def lines(self) -> dict[int, int]:
        """The row that ends in each line of the text: where a mistake that names the line belongs."""
        line, found = _lines(self._head.text), {}
        for number, record in self._records.items():
            line += _lines(record.text)
            found[line] = number
        return found

    def set(self, number: int, column: str, value: str) -> None:
        """Gives a cell another value, blanks at its ends removed; a column that there is not yet comes last."""
        record, value = self._records[number], value.strip()
        if column not in self.columns:
            if not value:
                return
            self._head.cells = [*(self._head.cells if self.columns else ()), _cell(column)]
        at = self.columns.index(column)
        if at < len(record.cells) and _value(record.cells[at]) == value:
            return
        if at >= len(record.cells) and not value:
            return
        record.cells += [""] * (at + 1 - len(record.cells))
        record.cells[at] = _cell(value)

    def add(self, values: Mapping[str, str], after: int | None = None) -> int:
        """Puts a new row behind another, or at the end; gives its number."""
        number, self._next = self._next, self._next + 1
        rows = list(self._records.items())
        at = len(rows) if after is None else list(self._records).index(after) + 1
        before = rows[at - 1][1] if at else self._head
        end = before.end
        before.end = end or self._newline
        self._records = dict([*rows[:at], (number, _Record([""] * len(self.columns), end)), *rows[at:]])
        for column, value in values.items():
            self.set(number, column, value)
        return number

    def put(self, values: Mapping[str, str], keys: Sequence[str]) -> int:
        """Sets the row that has these values in the columns ``keys``, or adds it behind the last with the first of them."""
        like = [number for number, row in self.rows.items() if row.get(keys[0], "") == values[keys[0]]]
        same = [number for number in like if all(self.rows[number].get(key, "") == values.get(key, "") for key in keys)]
        if not same:
            return self.add(values, like[-1] if like else None)
        for column, value in values.items():
            self.set(same[0], column, value)
        return same[0]

    def delete(self, number: int) -> None:
        """Takes a row out."""
        del self._records[number]


def changed(old: str, new: str) -> tuple[list[str], list[str]]:
    """The lines that a text no longer has, and those that another has more; each as ``12: …`` with its number."""
    before, after = old.splitlines(), new.splitlines()
    return list(_only(before, after)), list(_only(after, before))


def encoded(text: str, encoding: str) -> bytes:
    """The text in an encoding that ``decoded`` names; in UTF-8 with a byte order mark where it could not be read back.

    Raises UnicodeEncodeError for what no encoding has (half a surrogate pair).
    """
    data = text.encode(encoding)
    return data if decoded(data)[0] == text else text.encode("utf-8-sig")


def _records(text: str, file: str) -> Iterator[_Record]:
    """The records of a text, cut as the csv module reads them."""
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(iter(lines), strict=True)
    start = 0
    try:
        for values in reader:
            raw, start = "".join(lines[start : reader.line_num]), reader.line_num
            body = raw.rstrip("\r\n")
            cells = [match[0] for match in _cells(body)]
            if len(values or [""]) != len(cells):  # it is written in a way of its own: as it is read
                cells = [_cell(value) for value in values]
            yield _Record(cells, raw[len(body) :])
    except csv.Error as error:
        message = f"is not CSV ({error}); look from here on for a quotation mark that is not closed"
        raise SheetError(Mistake(file, start + 1, "", message)) from None


def _cells(body: str) -> Iterator[re.Match[str]]:
    at = 0
    while (match := _CELL.match(body, at)) is not None:
        yield match
        at = match.end() + 1
        if at > len(body):
            return


def _value(cell: str) -> str:
    """What a cell says, blanks at its ends removed, as ``read_table`` reads it."""
    return (cell[1:-1].replace('""', '"') if cell.startswith('"') else cell).strip()


def _cell(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if _MUST_BE_QUOTED.search(value) else value


def _lines(text: str) -> int:
    """How many lines a record of the text takes."""
    return sum(1 for _ in io.StringIO(text, newline=""))


def _only(lines: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    left: dict[str, int] = {}
    for line in others:
        left[line] = left.get(line, 0) + 1
    for number, line in enumerate(lines, 1):
        if left.get(line, 0):
            left[line] -= 1
        else:
            yield f"{number}: {line}"
