"""Mappings: the tables to edit, checked as one types, tried out on a message, saved with a reason."""

import asyncio
from collections.abc import Sequence
from typing import Any

from nicegui import events, ui

from labbridge import mapfiles
from labbridge.console import session
from labbridge.console.acting import act
from labbridge.console.frame import page
from labbridge.console.tryout import TryOut
from labbridge.console.watch import watch
from labbridge.mapfiles import MapError
from labbridge.mapping.sheet import SheetError
from labbridge.showing import shown
from labbridge.views.draft import Draft, Line
from labbridge.views.texts import _

PAUSE_SECONDS = 0.2  # without another change, and the table is checked
SHOWN = 30  # mistakes, changed lines
_WIDEST = 320

# Cells are text: the grid renders no markup unless it is told to.
_CELLS = {"lb-cell-wrong": "data.wrong && data.wrong[colDef.field]"}
_WHY = "params => params.data && params.data.wrong && params.data.wrong[params.colDef.field]"


@page("/mappings", "Mappings", "see mappings")
async def mappings(table: str = "") -> None:
    """The editor, with this table or the first."""
    await watch().ready.wait()
    await _Editor().open(table)


class _Editor:
    """One table at a time."""

    def __init__(self) -> None:
        self._draft: Draft | None = None
        self._turn = 0
        self._may = session.can("map")
        with ui.row().classes("w-full items-end gap-3"):
            self._table = ui.select({}, label=_("Table"), on_change=self._chosen).classes("w-80")
            self._searched = ui.input(_("Search"), on_change=self._search).props("clearable").classes("w-56")
            if self._may:
                ui.button(_("Add a row"), icon="add", on_click=self._add).props("no-caps outline")
                ui.button(_("Delete rows"), icon="delete", on_click=self._delete).props("no-caps outline")
            ui.space()
            self._state = ui.row().classes("items-center gap-1")
            if self._may:
                ui.button(_("Discard"), on_click=self._discard).props("no-caps flat")
                self._save_button = ui.button(_("Save …"), icon="save", on_click=self._save).props("no-caps")
        self._where = ui.label().classes("lb-quiet")
        self._box = ui.element("div").classes("w-full")
        self._grid: ui.aggrid | None = None
        self._mistakes = ui.column().classes("w-full gap-0")
        self._try = TryOut(lambda: self._draft)

    async def open(self, name: str) -> None:
        """Shows a table as it is in the file."""
        files = mapfiles.files(watch().settings)
        file = files.get(name) or next(iter(files.values()))
        self._name = file.name
        labels = {one.name: f"{one.name}  {' '.join(one.analyzers)}" for one in files.values()}
        self._table.set_options(labels, value=file.name)
        whose = (
            _("your own") if file.is_own else _("comes with labbridge; saving makes a copy of your own") if file.data else _("new")
        )
        self._where.text = f"{file.path} · {whose}"
        self._box.clear()
        self._mistakes.clear()
        try:
            self._draft = draft = Draft(file.name, file.text, file.known)
        except (MapError, SheetError) as error:
            self._draft = self._grid = None
            with self._mistakes:
                ui.label(shown(str(error))).classes("lb-bad")
            return
        with self._box:
            self._grid = self._made(draft)
        self._try.choose(file.analyzers)
        await self._check()

    def _made(self, draft: Draft) -> ui.aggrid:
        lines = draft.lines()
        columns = [_column(f"c{at}", name, lines, self._may) for at, name in enumerate(draft.columns)]
        options: dict[str, Any] = {
            "columnDefs": columns,
            "rowData": lines,
            ":getRowId": "params => params.data.id",
            "tooltipShowDelay": 200,
            "suppressColumnVirtualisation": True,  # for who listens to the page, and for the browser's own search
            "rowHeight": 34,
            "headerHeight": 36,
            "stopEditingWhenCellsLoseFocus": True,
            "undoRedoCellEditing": True,
            "enableCellTextSelection": not self._may,
        }
        if self._may:
            options["rowSelection"] = {
                "mode": "multiRow",
                "checkboxes": True,
                "headerCheckbox": False,
                "enableClickSelection": False,
            }
        grid = ui.aggrid(options, auto_size_columns=False).classes("w-full").style("height: min(60vh, 36rem)")
        grid.on("cellValueChanged", self._edited, ["data", "colId", "newValue"])
        return grid

    # -- changes ---------------------------------------------------------------------------------------------------

    async def _edited(self, event: events.GenericEventArguments) -> None:
        draft, cell = self._draft, str(event.args["colId"])
        if draft is None or not self._may or cell not in {f"c{at}" for at in range(len(draft.columns))}:
            return
        line = draft.edit(int(event.args["data"]["id"]), cell, str(event.args["newValue"] or ""))
        if line[cell] != event.args["newValue"]:
            self._update([line])
        await self._soon()

    async def _add(self) -> None:
        if self._draft is None or self._grid is None:
            return
        chosen = await self._selected()
        line = self._draft.add(chosen[-1] if chosen else None)
        self._grid.run_grid_method("applyTransaction", {"add": [line], "addIndex": self._index(line["id"])})
        self._show_row(line["id"])
        await self._soon()

    async def _delete(self) -> None:
        chosen = await self._selected()
        if self._draft is None or self._grid is None or not chosen:
            ui.notify(_("Mark the rows first: at their left."), type="info")
            return
        self._draft.delete(chosen)
        self._grid.run_grid_method("applyTransaction", {"remove": [{"id": str(one)} for one in chosen]})
        await self._soon()

    async def _selected(self) -> list[int]:
        return [int(one["id"]) for one in await self._grid.get_selected_rows()] if self._grid else []

    def _index(self, row: str) -> int:
        return [line["id"] for line in self._draft.lines()].index(row) if self._draft else 0

    def _search(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if self._grid is not None:
            self._grid.run_grid_method("setGridOption", "quickFilterText", event.value or "")

    def _update(self, lines: Sequence[Line]) -> None:
        if self._grid is not None and lines:
            self._grid.run_grid_method("applyTransaction", {"update": list(lines)})

    # -- checking --------------------------------------------------------------------------------------------------

    async def _soon(self) -> None:
        self._turn += 1
        turn = self._turn
        await asyncio.sleep(PAUSE_SECONDS)
        if turn == self._turn:
            await self._check()

    async def _check(self) -> bool:
        """Proves the table as it stands, as at the start of the daemon; shows every mistake at its cell."""
        draft, here = self._draft, watch()
        if draft is None:
            return False
        text = draft.text
        found = await asyncio.to_thread(mapfiles.mistakes, here.settings, here.path, draft.file, text)
        if draft is not self._draft or text != draft.text:
            return False
        self._update(draft.judge(found))
        self._tell(draft)
        return not found

    def _tell(self, draft: Draft) -> None:
        wrong = draft.mistakes
        self._state.clear()
        with self._state:
            icon, kind, text = "check_circle", "lb-good", _("no mistakes")
            if wrong:
                icon, kind, text = "error", "lb-bad", _("mistakes: {n}", n=len(wrong))
            ui.icon(icon).classes(f"{kind} text-xl").props("aria-hidden=true")
            ui.label(text + (f" · {_('not saved yet')}" if draft.is_changed else "")).classes(kind).props("role=status")
        self._mistakes.clear()
        with self._mistakes:
            for row, what in wrong[:SHOWN]:
                with ui.row().classes("items-center gap-1 no-wrap lb-bad"):
                    ui.icon("error").props("aria-hidden=true")
                    ui.label(shown(what)[:500])
                    if row is not None:
                        ui.button(_("Show"), on_click=lambda row=row: self._show_row(str(row))).props("flat dense no-caps")
        if self._may:
            self._save_button.set_enabled(draft.is_changed and not wrong)

    def _show_row(self, row: str) -> None:
        """Goes to a row, though a search may hide it."""
        if self._grid is not None:
            self._searched.value = ""
            self._grid.run_grid_method("setFocusedCell", self._index(row), "c0")
            self._grid.run_grid_method("ensureIndexVisible", self._index(row), "middle")

    # -- leaving ---------------------------------------------------------------------------------------------------

    async def _chosen(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if event.value == self._name:
            return
        if self._draft is not None and self._draft.is_changed and not await _sure(_("Leave this table without saving?")):
            self._table.value = self._name
            return
        await self.open(event.value)

    async def _discard(self) -> None:
        if self._draft is None or not self._draft.is_changed or await _sure(_("Discard what you changed?")):
            await self.open(self._name)

    async def _save(self) -> None:
        draft = self._draft
        if draft is None or not await self._check():
            return
        draft.tidy()
        reason = await _ask(draft)
        if reason:
            answer = await act("map", file=draft.file, text=draft.text, known=draft.known, reason=reason)
            if answer.ok:
                await self.open(draft.file)


def _column(field: str, name: str, lines: Sequence[Line], editable: bool) -> dict[str, Any]:
    longest = max([len(name) + 3, *(len(str(line[field])) for line in lines[:300])])
    look = {"headerName": name, "field": field, "width": min(_WIDEST, 40 + 8 * longest), "editable": editable, "resizable": True}
    return {**look, "sortable": False, "suppressMovable": True, "cellClassRules": _CELLS, ":tooltipValueGetter": _WHY}


async def _sure(question: str) -> bool:
    with ui.dialog() as dialog, ui.card():
        dialog.props["aria-label"] = question
        ui.label(question).classes("text-lg")
        with ui.row().classes("w-full justify-end"):
            ui.button(_("Cancel"), on_click=lambda: dialog.submit(False)).props("flat no-caps autofocus")
            ui.button(_("Yes"), on_click=lambda: dialog.submit(True)).props("no-caps")
    answer = await dialog
    dialog.delete()
    return bool(answer)


async def _ask(draft: Draft) -> str | None:
    """Shows what is changed and asks why."""
    with ui.dialog() as dialog, ui.card().classes("w-[48rem] max-w-full"):
        dialog.props["aria-label"] = _("Save {file}", file=draft.file)
        ui.label(_("Save {file}", file=draft.file)).classes("text-lg")
        for sign, kind, lines in zip("-+", ("lb-bad", "lb-good"), draft.changes, strict=True):
            for line in lines[:SHOWN]:
                ui.label(f"{sign} {shown(line)[:300]}").classes(f"font-mono text-sm break-all {kind}")
            if len(lines) > SHOWN:
                ui.label(f"{sign} {_('… and {n} more', n=len(lines) - SHOWN)}").classes(kind)
        reason = ui.input(_("Reason")).props("autofocus outlined").classes("w-full")
        with ui.row().classes("w-full justify-end"):
            ui.button(_("Cancel"), on_click=lambda: dialog.submit(None)).props("flat no-caps")
            go = ui.button(_("Save"), on_click=lambda: dialog.submit(reason.value)).props("no-caps")
            go.bind_enabled_from(reason, "value", lambda text: bool((text or "").strip()))
    answer = await dialog
    dialog.delete()
    return answer or None
