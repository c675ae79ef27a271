"""The list of Pending as one person sees it: rows as they were when the list was last asked for, page by page."""

from collections.abc import Mapping, Sequence
from typing import Any

from labbridge.views.held import Held
from labbridge.views.listing import cells, group_cells
from labbridge.views.rows import Filter, Group, Key, Row, groups_of

PAGE = 50  # lines on the screen


class Screen:
    """What is chosen of all rows, what of that is on the screen, and the line that the cursor is on."""

    def __init__(self, held: Held) -> None:
        self.filter = Filter()
        self.grouped = False
        self.first = self.cursor = 0  # the first line on the screen; the cursor's, counted from there
        self._held = held
        self.choose()

    def choose(self) -> None:
        """Takes the rows as they are now, from the first line on."""
        self._version = self._held.version
        self.rows: dict[Key, Row] = {key: row for key, row in self._held.ordered().items() if self.filter.passes(row)}
        every = list(self.rows.values())
        self.lines: Sequence[Row | Group] = groups_of(every) if self.grouped and not self.filter.cause else every
        self.first = self.cursor = 0

    def news(self) -> int:
        """How many rows have come since."""
        if self._held.version == self._version:
            return 0
        now = self._held.ordered()
        return sum(self.filter.passes(now[key]) for key in now.keys() - self.rows.keys())

    def turn(self, pages: int) -> None:
        """Shows another page."""
        self.first = max(0, min(self.first + pages * PAGE, (len(self.lines) - 1) // PAGE * PAGE))
        self.cursor = 0

    def move(self, lines: int) -> None:
        """Moves the cursor on the page."""
        self.cursor = max(0, min(self.cursor + lines, len(self._page()) - 1))

    def line(self) -> Row | Group | None:
        """The line that the cursor is on."""
        return next(iter(self._page()[self.cursor :]), None)

    def drawn(self, present: Mapping[str, set[str]], account: str) -> list[dict[str, Any]]:
        """The page as a table takes it; ``present`` tells who has what open beside this account."""
        now, drawn = self._held.ordered(), []
        for place, line in enumerate(self._page()):
            if isinstance(line, Group):
                drawn.append(group_cells(line, here=place == self.cursor))
            else:
                others = present.get(line.opens, set()) - {account} if line.opens else ()
                drawn.append(cells(now.get(line.key, line), others, gone=line.key not in now, here=place == self.cursor))
        return drawn

    def _page(self) -> Sequence[Row | Group]:
        return self.lines[self.first : self.first + PAGE]
