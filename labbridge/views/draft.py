"""A table of the mappings while it is edited: rows for the screen, and where its mistakes are. No screen here.

Columns have names of ours (``c0``, ``c1``): what a laboratory calls them is only shown.
"""

from collections.abc import Iterable
from typing import Any

from labbridge.mapping import Mistake, Sheet, columns_of
from labbridge.mapping.sheet import changed

Line = dict[str, Any]  # id; c0, c1 …; wrong: what is wrong, by c0, c1 …


class Draft:
    """One table being edited. Raises SheetError where the text is not CSV."""

    def __init__(self, file: str, text: str, known: str) -> None:
        self.file, self.known, self.before = file, known, text
        self._sheet = Sheet(text or ",".join(columns_of(file)) + "\n", file)
        self.columns = (*self._sheet.columns, *(name for name in columns_of(file) if name not in self._sheet.columns))
        self.elsewhere: list[Mistake] = []  # what is wrong in other files, or in no line
        self._wrong: dict[int, dict[str, str]] = {}
        self._added: set[int] = set()

    @property
    def text(self) -> str:
        """The table as it stands."""
        return self.before if not self.before and not self._sheet.rows else self._sheet.text

    @property
    def is_changed(self) -> bool:
        """Whether anything is to be saved."""
        return self.text != self.before

    @property
    def changes(self) -> tuple[list[str], list[str]]:
        """The lines that go, and those that come."""
        return changed(self.before, self.text)

    @property
    def mistakes(self) -> list[tuple[int | None, str]]:
        """All that is wrong: the row, where it is in one, and what."""
        here = [
            (row, f"{self.columns[int(cell[1:])]}: {what}") for row, cells in self._wrong.items() for cell, what in cells.items()
        ]
        return [*here, *((None, one.line_of_text()) for one in self.elsewhere)]

    def lines(self) -> list[Line]:
        """Every row, for the screen."""
        rows = self._sheet.rows
        there = [number for number in self._sheet.numbers if number in rows or number in self._added]
        return [self._line(number, rows.get(number, {})) for number in there]

    def line(self, number: int) -> Line:
        """One row, for the screen."""
        return self._line(number, self._sheet.rows.get(number, {}))

    def edit(self, number: int, cell: str, value: str) -> Line:
        """Gives a cell another value; the row then."""
        self._sheet.set(number, self.columns[int(cell[1:])], value)
        return self.line(number)

    def put(self, values: dict[str, str], keys: tuple[str, ...]) -> int:
        """Sets or adds the row of a code."""
        return self._sheet.put(values, keys)

    def add(self, after: int | None = None) -> Line:
        """Puts a row behind another, or at the end."""
        number = self._sheet.add({}, after)
        self._added.add(number)
        return self.line(number)

    def delete(self, numbers: Iterable[int]) -> None:
        """Takes rows out."""
        for number in numbers:
            self._sheet.delete(number)
            self._wrong.pop(number, None)

    def tidy(self) -> set[int]:
        """Takes out the rows that were added and are empty still; which they were."""
        empty = self._added.difference(self._sheet.rows).intersection(self._sheet.numbers)
        self.delete(empty)
        return empty

    def judge(self, found: Iterable[Mistake]) -> list[Line]:
        """Takes what is wrong with the text as it stands; gives the rows that are to be shown otherwise than before."""
        before, lines = self._wrong, self._sheet.lines()
        self._wrong, self.elsewhere = {}, []
        for mistake in found:
            number = lines.get(mistake.line) if mistake.file == self.file else None
            if number is None:
                self.elsewhere.append(mistake)
                continue
            at = self.columns.index(mistake.column) if mistake.column in self.columns else 0
            cells = self._wrong.setdefault(number, {})
            cells[f"c{at}"] = "; ".join(filter(None, (cells.get(f"c{at}"), mistake.message)))
        there = self._sheet.rows
        return [self.line(one) for one in {**before, **self._wrong} if one in there and before.get(one) != self._wrong.get(one)]

    def _line(self, number: int, values: dict[str, str]) -> Line:
        cells = {f"c{at}": values.get(name, "") for at, name in enumerate(self.columns)}
        return {"id": str(number), **cells, "wrong": self._wrong.get(number, {})}
