"""What came and what left, byte for byte, beside the story: as text, as a tree with the standard's names, as bytes."""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec
from nicegui import ui

from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.store import Reader
from labbridge.store.erasure import erased
from labbridge.store.rows import Attempt
from labbridge.views import raw
from labbridge.views.texts import _, number_text, time_text

_TEXT = "font-mono text-sm whitespace-pre-wrap break-all max-h-[70vh] overflow-auto w-full"
_BYTES = "font-mono text-xs whitespace-pre overflow-auto max-h-[70vh] w-full"


class Body(msgspec.Struct, frozen=True):
    """One row's bytes and what they are; ``whole`` is how many there were."""

    title: str
    data: bytes
    whole: int


class Read(msgspec.Struct, frozen=True):
    """The same as lines and as nodes of a tree; ``left_out`` bytes are in neither."""

    body: Body
    lines: list[str]
    left_out: int
    nodes: list[dict[str, Any]]


def read(reader: Reader, kind: str, id: int) -> Read | None:
    """The bytes of a row and what can be read of them."""
    body = body_of(reader, kind, id)
    if body is None:
        return None
    if erased(body.data):
        return Read(body, [], 0, [])
    numbers = count()
    return Read(body, *raw.text_lines(body.data), [_node(node, numbers) for node in raw.tree(body.data)])


def body_of(reader: Reader, kind: str, id: int) -> Body | None:
    """The bytes of a message, a delivery or an attempt (an answer); None where there is no such row."""
    if kind == "message" and (message := reader.message(id)) is not None:
        title = _("Message {id} from {analyzer}, {time}", id=id, analyzer=brief(message.analyzer), time=time_text(message.at))
        return Body(title, message.body, message.size)
    if kind == "delivery" and (delivery := reader.find_delivery(id)) is not None:
        title = _("What {destination} receives: delivery {id}", destination=delivery.destination, id=id)
        return Body(title, delivery.payload, len(delivery.payload))
    for attempt in reader.rows(Attempt, "id", [id]) if kind == "attempt" else ():
        title = _("What the hospital answered to delivery {id}", id=attempt.delivery_id)
        return Body(title, attempt.reply, len(attempt.reply))
    return None


class Bodies:
    """The panel; built where it is made, shows what ``show`` is told."""

    def __init__(self) -> None:
        with ui.column().classes("w-full gap-2").props(f'role="region" aria-label="{_("The message itself")}"') as self._place:
            ui.label(_("Choose an event to see its message."))

    async def show(self, kind: str, id: int) -> None:
        """Reads a row and shows its bytes."""
        found = await asyncio.to_thread(read, watch().reader, kind, id)
        self._place.clear()
        with self._place:
            if found is None:
                ui.label(_("It is not in the store."))
                return
            ui.label(found.body.title).classes("text-base font-medium")
            if erased(found.body.data):
                ui.label(_("Its bytes were deleted by retention."))
            else:
                self._draw(found)

    def _draw(self, found: Read) -> None:
        body = found.body
        size = _("{size} bytes", size=number_text(body.whole))
        kept = _("only the first {size} were kept", size=number_text(len(body.data)))
        ui.label(size if body.whole <= len(body.data) else f"{size}, {kept}").classes("text-sm")
        with ui.tabs().props("dense no-caps align=left").classes("w-full") as tabs:
            names = [ui.tab("text", _("Text")), ui.tab("tree", _("Fields")), ui.tab("bytes", _("Bytes"))]
        with ui.tab_panels(tabs, value=names[0]).classes("w-full").props("keep-alive"):
            with ui.tab_panel(names[0]).classes("p-0"):
                ui.label("\n".join(found.lines)).classes(_TEXT).props("tabindex=0")
                if found.left_out:
                    ui.label(_("… and {count} bytes more", count=number_text(found.left_out)))
            with ui.tab_panel(names[1]).classes("p-0 max-h-[70vh] overflow-auto").props("tabindex=0"):
                ui.tree(found.nodes).props("dense no-transition").classes("w-full text-sm")
            with ui.tab_panel(names[2]).classes("p-0"):
                _hexadecimal(body.data)


def _hexadecimal(data: bytes) -> None:
    """The bytes, a page at a time."""
    text = ui.label("\n".join(raw.hex_lines(data))).classes(_BYTES).props("tabindex=0")
    if raw.pages(data) > 1:
        turn = ui.pagination(1, raw.pages(data), direction_links=True).props(f'aria-label="{_("Pages of bytes")}" max-pages=7')
        turn.on_value_change(lambda event: text.set_text("\n".join(raw.hex_lines(data, int(event.value) - 1))))


def _node(node: raw.Node, numbers: Any) -> dict[str, Any]:
    name = " ".join(filter(None, (node.place, node.name)))
    label = f"{name}:  {node.text}" if name and node.text else name or node.text
    return {"id": next(numbers), "label": label, "children": [_node(part, numbers) for part in node.parts]}


def text_table(rows: Sequence[Sequence[str]]) -> None:
    """A table of plain texts; the first row is its headings."""
    heading, *others = rows
    columns = [{"name": str(n), "label": name, "field": str(n), "align": "left"} for n, name in enumerate(heading)]
    shown = [{"id": number, **{str(n): text for n, text in enumerate(row)}} for number, row in enumerate(others)]
    ui.table(columns=columns, rows=shown, row_key="id").props(
        "dense flat wrap-cells hide-pagination :rows-per-page-options=[0]"
    ).classes("w-full lb-texts")
