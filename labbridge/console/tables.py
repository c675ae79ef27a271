"""A plain table."""

from collections.abc import Callable, Iterable, Sequence

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

Cell = str | Callable[[], object]  # a text, or what draws the cell


def plain_table(heads: Iterable[str], rows: Iterable[Sequence[Cell]]) -> list[ui.element]:
    """Draws a table and gives its rows."""
    drawn = []
    with ui.element("table").classes("lb-plain"):
        with ui.element("thead"), ui.element("tr"):
            for head in heads:
                TextElement(tag="th", text=head).props("scope=col")
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr") as line:
                    for cell in row:
                        if isinstance(cell, str):
                            TextElement(tag="td", text=cell)
                        else:
                            with ui.element("td"):
                                cell()
                drawn.append(line)
    return drawn
