"""What came and what left, byte for byte, beside the story: as text, as a tree with the standard's names, as bytes."""

import asyncio
from itertools import count
from typing import Any

from nicegui import ui

from labbridge.console.watch import watch
from labbridge.store.erasure import erased
from labbridge.views import raw
from labbridge.views.texts import _, number_text

_MONO = "font-mono w-full max-h-[70vh] overflow-auto"


class Bodies:
    """The panel; built where it is made, shows what ``show`` is told."""

    def __init__(self) -> None:
        with ui.column().classes("w-full gap-2").props(f'role="region" aria-label="{_("The message itself")}"') as self._place:
            ui.label(_("Choose an event to see its message."))

    async def show(self, kind: str, id: int) -> None:
        """Reads a row and shows its bytes."""
        found = await asyncio.to_thread(raw.body_of, watch().reader, kind, id)
        title, data, whole = found or (_("It is not in the store."), b"", 0)
        gone = erased(data)
        lines, left_out = await asyncio.to_thread(raw.text_lines, data)
        nodes = await asyncio.to_thread(raw.tree, data)
        self._place.clear()
        with self._place:
            ui.label(title).classes("text-base font-medium")
            if gone:
                ui.label(_("Its bytes were deleted by retention."))
            elif found:
                size = _("{size} bytes", size=number_text(whole))
                kept = _("only the first {size} were kept", size=number_text(len(data)))
                ui.label(size if whole <= len(data) else f"{size}, {kept}").classes("text-sm")
                more = _("… and {count} bytes more", count=number_text(left_out)) if left_out else ""
                _tabs("\n".join([*lines, more]), nodes, data)


def _tabs(text: str, nodes: tuple[raw.Node, ...], data: bytes) -> None:
    """The same bytes in three ways."""
    with ui.tabs().props("dense no-caps align=left").classes("w-full") as tabs:
        names = [ui.tab(name) for name in (_("Text"), _("Fields"), _("Bytes"))]
    with ui.tab_panels(tabs, value=names[0]).classes("w-full").props("keep-alive"):
        with ui.tab_panel(names[0]).classes("p-0"):
            ui.label(text).classes(f"{_MONO} text-sm whitespace-pre-wrap break-all").props("tabindex=0")
        with ui.tab_panel(names[1]).classes("p-0 max-h-[70vh] overflow-auto").props("tabindex=0"):
            numbers = count()
            ui.tree([_node(node, numbers) for node in nodes]).props("dense no-transition").classes("w-full text-sm break-all")
        with ui.tab_panel(names[2]).classes("p-0"):
            shown = ui.label("\n".join(raw.hex_lines(data))).classes(f"{_MONO} text-xs whitespace-pre").props("tabindex=0")
            if raw.pages(data) > 1:
                turn = ui.pagination(1, raw.pages(data), direction_links=True)
                turn.props(f'aria-label="{_("Pages of bytes")}" max-pages=7')
                turn.on_value_change(lambda event: shown.set_text("\n".join(raw.hex_lines(data, int(event.value) - 1))))


def _node(node: raw.Node, numbers: Any) -> dict[str, Any]:
    label = ":  ".join(filter(None, (f"{node.place} {node.name}".strip(), node.text)))
    return {"id": next(numbers), "label": label, "children": [_node(part, numbers) for part in node.parts]}
