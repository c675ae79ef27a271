"""Mappings: the tables to edit, checked as one types, tried out on a message, saved with a reason."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nicegui import events, ui

from labbridge import mapfiles
from labbridge.console import session
from labbridge.console.acting import Question, act
from labbridge.console.frame import page
from labbridge.console.tryout import TryOut, judge, mistake
from labbridge.console.watch import watch
from labbridge.mapfiles import MapError
from labbridge.mapping.sheet import SheetError
from labbridge.showing import brief
from labbridge.views.draft import Draft, Line
from labbridge.views.texts import _

SHOWN = 30  # mistakes, changed lines
_OPTIONS = {
    ":getRowId": "params => params.data.id",
    "tooltipShowDelay": 200,
    "suppressColumnVirtualisation": True,  # for who listens to the page, and for the browser's own search
    "rowHeight": 34,
    "headerHeight": 36,
    "stopEditingWhenCellsLoseFocus": True,
    "undoRedoCellEditing": True,
}
_ROWS = {"mode": "multiRow", "checkboxes": True, "headerCheckbox": False, "enableClickSelection": False}
# Cells are text: the grid renders no markup unless it is told to.
_COLUMN = {
    "sortable": False,
    "suppressMovable": True,
    "cellClassRules": {"lb-cell-wrong": "data.wrong && data.wrong[colDef.field]"},
    ":tooltipValueGetter": "params => params.data && params.data.wrong && params.data.wrong[params.colDef.field]",
}


@page("/mappings", "Mappings", "see mappings")
async def mappings(table: str = "") -> None:
    """The editor, with this table or the first."""
    await _Tables().open(table)


class _Tables:
    """Which table is open; one at a time."""

    def __init__(self) -> None:
        self._name = ""
        self._editor: _Editor | None = None
        with ui.row().classes("w-full items-end gap-3"):
            self._table = ui.select({}, label=_("Table"), on_change=self._chosen).classes("w-80")
            self._bar = ui.row().classes("grow items-end gap-3")
        self._where = ui.label().classes("lb-quiet")
        self._box = ui.column().classes("w-full gap-2")
        self._try = TryOut()

    async def open(self, name: str) -> None:
        """Shows a table as it is in the file."""
        files = mapfiles.files(watch().settings)
        file = files.get(name) or next(iter(files.values()))
        self._name, self._editor = file.name, None
        labels = {one.name: f"{one.name}  {' '.join(one.analyzers)}" for one in files.values()}
        self._table.set_options(labels, value=file.name)
        self._bar.clear()
        self._box.clear()
        with self._box:  # who asked may be gone with the bar
            common = _("comes with labbridge; saving makes a copy of your own") if file.data else _("new")
            self._where.text = f"{file.path} · {_('your own') if file.is_own else common}"
            try:
                draft = Draft(file.name, file.text, file.known)
            except (MapError, SheetError) as error:
                self._try.use(None, file.analyzers)
                mistake(str(error))
                return
            self._editor = _Editor(draft, self._bar, self.open)
            self._try.use(draft, file.analyzers)
            await self._editor.check()

    async def _chosen(self, event: events.ValueChangeEventArguments[str]) -> None:
        if event.value == self._name:
            return
        if self._editor is None or await self._editor.may_leave(_("Leave this table without saving?")):
            await self.open(event.value)
        else:
            self._table.value = self._name


class _Editor:
    """A table while it is open."""

    def __init__(self, draft: Draft, bar: ui.row, reopen: Callable[[str], Awaitable[None]]) -> None:
        self._draft, self._reopen = draft, reopen
        may = session.can("map")
        with bar:
            self._searched = ui.input(_("Search"), on_change=self._search).props("clearable").classes("w-56")
            with ui.row().classes("items-center gap-1 no-wrap") as self._status:
                self._icon = ui.icon("hourglass_empty").classes("text-xl")
                self._state = ui.label().props("role=status")
            ui.space()
            with ui.row().classes("gap-2") as changes:
                ui.button(_("Add a row"), icon="add", on_click=self._add).props("no-caps outline")
                ui.button(_("Delete rows"), icon="delete", on_click=self._delete).props("no-caps outline")
                ui.button(_("Discard"), on_click=self._discard).props("no-caps flat")
                self._save_button = ui.button(_("Save …"), icon="save", on_click=self._save).props("no-caps")
            changes.set_visibility(may)
        lines = draft.lines()
        columns = [_column(f"c{at}", name, lines) | {"editable": may} for at, name in enumerate(draft.columns)]
        rights = {"rowSelection": _ROWS} if may else {"enableCellTextSelection": True}
        self._grid = ui.aggrid({"columnDefs": columns, "rowData": lines, **_OPTIONS, **rights}, auto_size_columns=False)
        self._grid.classes("w-full").style("height: min(60vh, 36rem)")
        self._grid.on("cellValueChanged", self._edited, ["data", "colId", "newValue"])
        self._mistakes = ui.column().classes("w-full gap-0")

    async def _edited(self, event: events.GenericEventArguments) -> None:
        cell, value = event.args["colId"], event.args["newValue"]
        line = self._draft.edit(int(event.args["data"]["id"]), cell, str(value or ""))
        if line[cell] != value:
            self._change(update=[line])
        await self.check()

    async def _add(self) -> None:
        chosen = await self._selected()
        line = self._draft.add(chosen[-1] if chosen else None)
        self._change(add=[line], addIndex=self._index(line["id"]))
        self._show_row(line["id"])
        await self.check()

    async def _delete(self) -> None:
        if chosen := await self._selected():
            self._draft.delete(chosen)
            self._change(remove=[{"id": str(one)} for one in chosen])
            await self.check()
        else:
            ui.notify(_("Mark the rows first: at their left."), type="info")

    async def _selected(self) -> list[int]:
        return [int(one["id"]) for one in await self._grid.get_selected_rows()]

    def _index(self, row: str) -> int:
        return [line["id"] for line in self._draft.lines()].index(row)

    def _search(self) -> None:
        self._grid.run_grid_method("setGridOption", "quickFilterText", self._searched.value or "")

    def _change(self, **lines: Any) -> None:
        self._grid.run_grid_method("applyTransaction", lines)

    async def check(self) -> bool:
        """Proves the table as it stands; shows every mistake at its cell."""
        lines = await judge(self._draft)
        if lines is None or self._grid.is_deleted:
            return False
        if lines:
            self._change(update=lines)
        wrong, changed = self._draft.mistakes, self._draft.is_changed
        self._icon.set_name("error" if wrong else "check_circle")
        text = _("mistakes: {n}", n=len(wrong)) if wrong else _("no mistakes")
        self._state.text = f"{text} · {_('not saved yet')}" if changed else text
        self._status.classes(add="lb-bad" if wrong else "lb-good", remove="lb-good" if wrong else "lb-bad")
        self._save_button.set_enabled(changed and not wrong)
        self._mistakes.clear()
        with self._mistakes:
            for row, what in wrong[:SHOWN]:
                with mistake(what):
                    if row is not None:
                        ui.button(_("Show"), on_click=lambda row=row: self._show_row(str(row))).props("flat dense no-caps")
        return not wrong

    def _show_row(self, row: str) -> None:
        """Goes to a row, though a search may hide it."""
        self._searched.value = ""
        self._grid.run_grid_method("setFocusedCell", self._index(row), "c0")
        self._grid.run_grid_method("ensureIndexVisible", self._index(row), "middle")

    async def may_leave(self, question: str) -> bool:
        """Asks where something would be lost."""
        return not self._draft.is_changed or await Question(question, _("Yes")).confirmed()

    async def _discard(self) -> None:
        if await self.may_leave(_("Discard what you changed?")):
            await self._reopen(self._draft.file)

    async def _save(self) -> None:
        """Shows what is changed and asks why."""
        draft = self._draft
        self._change(remove=[{"id": str(one)} for one in draft.tidy()])
        if not await self.check():
            return
        question = Question(_("Save {file}", file=draft.file), _("Save"))
        with question.body:
            for sign, tone, lines in zip("-+", ("lb-bad", "lb-good"), draft.changes, strict=True):
                for line in lines[:SHOWN]:
                    ui.label(f"{sign} {brief(line, 300)}").classes(f"font-mono text-sm break-all {tone}")
                if len(lines) > SHOWN:
                    ui.label(f"{sign} {_('… and {n} more', n=len(lines) - SHOWN)}").classes(tone)
        reason = await question.reason()
        if reason and (await act("map", file=draft.file, text=draft.text, known=draft.known, reason=reason)).ok:
            await self._reopen(draft.file)


def _column(field: str, name: str, lines: Sequence[Line]) -> dict[str, Any]:
    longest = max([len(name) + 3, *(len(line[field]) for line in lines[:300])])
    return {"headerName": name, "field": field, "width": min(320, 40 + 8 * longest), "resizable": True, **_COLUMN}
