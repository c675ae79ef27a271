"""The dialog of every deed: what it covers, what is to be entered, what the hospital will receive."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from nicegui import ui

from labbridge.console.acting import Answer, show_leaves
from labbridge.console.keys import guard
from labbridge.console.texts import _
from labbridge.showing import brief

Preview = Callable[[dict[str, Any]], Awaitable[Answer]]

PREVIEW_S = 0.4  # what is entered is looked at so often
LISTED = 200  # lines of what a deed covers


class Field(msgspec.Struct, frozen=True):
    """Something to enter; required unless it is ``optional``."""

    name: str
    label: str
    value: Any = ""
    check: bool = False  # a box to tick
    optional: bool = False
    long: bool = False
    options: Mapping[str, str] = {}  # of which one is chosen
    offers: Sequence[str] = ()  # usual entries, one click each


class _Dialog:
    """A dialog while it is open."""

    def __init__(self, dialog: ui.dialog, fields: Sequence[Field], preview: Preview | None) -> None:
        self.dialog, self.fields, self.preview = dialog, fields, preview
        self.entered: dict[str, Any] = {field.name: (False if field.check else field.value) for field in fields}
        self.seen: dict[str, Any] | None = None
        self.answer: Answer | None = None
        self.go: ui.button | None = None

    def complete(self) -> bool:
        """Whether everything is entered, and nothing speaks against it."""
        entered = all(self.entered[field.name] or field.optional for field in self.fields)
        return entered and (self.preview is None or (self.answer is not None and self.answer.ok))

    def set(self, name: str, value: Any) -> None:
        """Takes what was entered."""
        self.entered[name] = value.strip() if isinstance(value, str) else value
        if self.preview is None and self.go is not None:
            self.go.set_enabled(self.complete())

    async def look(self) -> None:
        """Asks anew what would leave where something else was entered."""
        if self.preview is not None and self.entered != self.seen:
            self.seen = dict(self.entered)
            self.answer = await self.preview(dict(self.entered))
            self.leaves.refresh()

    def confirm(self) -> None:
        """Goes on, where all is entered."""
        if self.complete():
            self.dialog.submit(self.entered)

    @ui.refreshable_method
    def leaves(self) -> None:
        """What the hospital will receive, or why the deed cannot be done."""
        if self.answer is None:
            return
        with ui.column().classes("w-full gap-1 p-2 rounded lb-leaves"):
            if self.answer.ok:
                ui.label(_("What the hospital will receive")).classes("text-sm font-medium")
                show_leaves(self.answer.answer.get("leaves", ()))
            elif self.answer.error:
                ui.label(brief(self.answer.error, 600)).classes("lb-bad lb-wrap")


async def ask(
    title: str, fields: Sequence[Field], *, covers: Sequence[str] = (), told: str = "", preview: Preview | None = None
) -> dict[str, Any] | None:
    """Asks; what was entered, by the names of the fields, or None where the person turned back.

    Enter confirms nothing, for a scanner sends it: the button does, and Ctrl+Enter.
    """
    guard()
    with ui.dialog().props(f'aria-label="{title}"') as dialog, ui.card().classes("w-[44rem] max-w-full gap-2"):
        state = _Dialog(dialog, fields, preview)
        ui.label(title).classes("text-lg font-medium")
        if covers:
            _covered(covers)
        if told:
            ui.label(told).classes("text-sm opacity-80")
        for number, field in enumerate(fields):
            _enter(state, field, first=number == 0)
        state.leaves()
        with ui.row().classes("w-full justify-end"):
            ui.button(_("Cancel"), on_click=lambda: dialog.submit(None)).props("flat no-caps")
            go = ui.button(f"{title} · Ctrl+Enter", on_click=state.confirm).props("no-caps unelevated").classes("lb-confirm")
            go.set_enabled(state.complete())
            state.go = go

            async def look() -> None:
                await state.look()
                go.set_enabled(state.complete())

            ui.timer(PREVIEW_S, look)
    entered: dict[str, Any] | None = await dialog
    if not dialog.is_deleted:  # it is when the page is gone
        dialog.delete()
    return entered


def _covered(covers: Sequence[str]) -> None:
    with ui.column().classes("w-full gap-0 max-h-48 overflow-auto").props("tabindex=0"):
        for line in covers[:LISTED]:
            ui.label(line).classes("lb-wrap")
        if len(covers) > LISTED:
            ui.label(_("… and {n} more", n=len(covers) - LISTED))


def _enter(state: _Dialog, field: Field, *, first: bool) -> None:
    changed = partial(state.set, field.name)
    if field.check:
        ui.checkbox(field.label, on_change=lambda event: changed(event.value))
        return
    if field.options:
        chosen = field.value if field.value in field.options else None
        choice = ui.select(dict(field.options), label=field.label, value=chosen, with_input=True)
        choice.on_value_change(lambda event: changed(event.value or "")).classes("w-full").props("outlined dense")
        return
    made: ui.input | ui.textarea = ui.textarea(field.label) if field.long else ui.input(field.label)
    made.props("outlined dense" + (" autofocus" if first else "")).classes("w-full").set_value(field.value)
    made.on_value_change(lambda event: changed(event.value or ""))
    if field.offers:
        with ui.row().classes("gap-1"):
            for offer in field.offers:
                ui.button(offer, on_click=lambda offer=offer: made.set_value(offer)).props("flat dense no-caps")
