"""Audit: who did and saw what, newest first, and how the ledger stands."""

import asyncio
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from nicegui import app, background_tasks, ui
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from labbridge import roles
from labbridge.console import session
from labbridge.console.frame import page
from labbridge.console.proof import proof, verify
from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.store import StoreError
from labbridge.store.rows import Audit
from labbridge.views.actions import words
from labbridge.views.ledger import verdict
from labbridge.views.texts import _, number_text
from labbridge.views.trail import NEWEST, cells, conditions, lines, titles, whole

PAGE = 100
_OPEN = """<q-td :props="props"><q-btn flat dense round icon="more_horiz" :aria-label="'{word} ' + props.row.id"
 @click="$parent.$emit('open', props.row.id)" /></q-td>"""


def _zone() -> ZoneInfo:
    return ZoneInfo(watch().settings.site.timezone)


@page("/audit", "Audit", "see audit")
async def audit() -> None:
    """The page."""
    ui.label(_("Audit")).classes("text-2xl").props("role=heading aria-level=1")
    await _ledger()
    await _Trail().draw()


class _Trail:
    """The filters, and a page of rows: each is read when it is asked for, and no row moves by itself."""

    def __init__(self) -> None:
        self.rows: list[Audit] = []
        self.ends: list[int] = []  # of each page down to this one, the id that it begins below

    async def draw(self) -> None:
        """Filters, table, and the ways to other pages."""
        names = [one.name for one in await asyncio.to_thread(watch().reader.accounts)]
        deeds = {action: word for action, word in words().items() if not action.startswith("see ")}
        with ui.row().classes("w-full items-end gap-3"):
            self.fields: dict[str, ui.input | ui.select] = {
                "actor": ui.input(_("Who"), autocomplete=names).props("clearable"),
                "action": ui.select(deeds, label=_("Did what"), clearable=True).classes("min-w-[14rem]"),
                "subject": ui.input(_("On what"), placeholder=_("specimen 12345")).props("clearable debounce=400"),
                "first": ui.input(_("From")).props("type=date stack-label"),
                "last": ui.input(_("Until")).props("type=date stack-label"),
            }
            for field in self.fields.values():
                field.props("dense").on_value_change(lambda: self._show(NEWEST))
            ui.space()
            self.export = ui.link(_("Export as CSV"), "/audit.csv").classes("lb-link").props("download")
        columns = [{"name": name, "label": title, "field": name, "align": "left"} for name, title in titles().items()]
        columns.append({"name": "open", "label": _("All of it"), "field": "id", "align": "right"})
        self.table = ui.table(rows=[], columns=columns, row_key="id", pagination=0).classes("w-full lb-audit")
        self.table.props("flat dense wrap-cells hide-pagination").on("open", self._open)
        self.table.add_slot("body-cell-open", _OPEN.format(word=_("All of it")))
        with ui.row().classes("items-center gap-3"):
            self.newer = ui.button(_("Newer"), icon="chevron_left", on_click=lambda: self._show(*self.ends[:-1]))
            self.older = ui.button(_("Older"), icon="chevron_right", on_click=lambda: self._show(*self.ends, self.rows[-1].id))
            for button in (self.newer, self.older):
                button.props("flat no-caps")
            self.told = ui.label().classes("lb-quiet").props("role=status")
        await self._show(NEWEST)

    async def _show(self, *ends: int) -> None:
        asked = {name: field.value for name, field in self.fields.items() if field.value}
        wanted = conditions(asked, _zone())
        try:
            rows = await asyncio.to_thread(watch().reader.audit_trail, before=ends[-1], limit=PAGE + 1, **wanted)
        except StoreError as error:
            ui.notify(brief(str(error)), type="negative")
            return
        self.ends, self.rows = list(ends), rows[:PAGE]
        self.table.rows = [cells(row) for row in self.rows]
        self.newer.set_enabled(len(ends) > 1)
        self.older.set_enabled(len(rows) > PAGE)
        self.told.set_text("" if rows else _("Nothing was done like this."))
        self.export.props(f'href="/audit.csv?{urlencode(asked)}"')

    def _open(self, event: Any) -> None:
        """All of one row, however long it is."""
        for row in (one for one in self.rows if one.id == event.args):
            with (
                ui.dialog(value=True).props(f'aria-label="{_("All of it")}"') as dialog,
                ui.card().classes("w-[48rem] max-w-full gap-1"),
            ):
                dialog.on("hide", dialog.delete)
                for title, text in zip(titles().values(), whole(row, _zone()), strict=True):
                    ui.label(title).classes("lb-quiet text-sm")
                    ui.label(text or "–").classes("font-mono whitespace-pre-wrap break-all")
                ui.button(_("Close"), on_click=dialog.close).props("flat no-caps autofocus")


async def _ledger() -> None:
    """Where the chain ends, how long it is, and what its last verification found."""

    def begin() -> None:
        background_tasks.create(verify(watch().path), name="verification")
        timer.activate()

    async def follow() -> None:
        timer.active = proof.share is not None
        button.set_enabled(not timer.active)
        await standing.refresh()

    @ui.refreshable
    async def standing() -> None:
        head = await asyncio.to_thread(watch().reader.head)
        icon, tone, text = verdict(proof)
        with ui.row().classes(f"items-center gap-1 {tone}").props("role=status"):
            ui.icon(icon).classes("text-xl").props("aria-hidden=true")
            ui.label(text)
        if proof.share is not None:
            ui.linear_progress(proof.share, show_value=False).props(f'aria-label="{_("Verification")}"')
        for problem in proof.result.problems if proof.result else ():
            ui.label(brief(problem)).classes("lb-bad")
        ended = _("It ends at {head} after {n} transactions", head=head, n=number_text(head.sequence))
        ui.label(ended).classes("font-mono text-sm break-all lb-quiet")

    with ui.element("section").classes("lb-card w-full").props(f'aria-label="{_("The ledger")}"'):
        with ui.row().classes("w-full items-center"):
            ui.label(_("The ledger")).classes("text-lg font-medium").props("role=heading aria-level=2")
            ui.space()
            button = ui.button(_("Verify now"), on_click=begin).props("no-caps outline")
        await standing()
    timer = ui.timer(0.5, follow)


async def export(request: HttpRequest) -> Response:
    """The rows of a filter as CSV."""
    if not roles.may(request.scope[session.KEY].role, "see audit"):
        return PlainTextResponse(_("Your role may not see this page."), 403)
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"', "Cache-Control": "no-store"}
    found = lines(watch().reader, conditions(request.query_params, _zone()), _zone())
    return StreamingResponse(found, media_type="text/csv; charset=utf-8", headers=headers)


app.add_route("/audit.csv", export, ["GET"])
