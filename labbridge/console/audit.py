"""Audit: who did and saw what, newest first, and how the ledger stands."""

import asyncio
import csv
import io
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgspec
from nicegui import app, background_tasks, ui
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from labbridge import roles
from labbridge.console import actions, session
from labbridge.console.frame import page
from labbridge.console.proof import proof
from labbridge.console.watch import watch
from labbridge.showing import shown
from labbridge.store import StoreError
from labbridge.store.rows import Audit
from labbridge.views.texts import _, number_text, time_text

PAGE = 100
EXPORT = 2000
SHORT = 200  # characters of a cell
_OPEN = """<q-td :props="props"><q-btn flat dense round icon="more_horiz" :aria-label="'{word} ' + props.row.id"
 @click="$parent.$emit('open', props.row.id)" /></q-td>"""
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute


class Wanted(msgspec.Struct):
    """What the table is to show; days as 2026-11-22, inclusive."""

    actor: str = ""
    action: str = ""
    subject: str = ""
    first: str = ""
    last: str = ""

    def conditions(self, zone: ZoneInfo) -> dict[str, Any]:
        """The same for the store."""
        days = {"since": _midnight(self.first, zone, 0), "until": _midnight(self.last, zone, 1)}
        values = {"actor": self.actor.strip(), "action": self.action or "", "subject": self.subject.strip()}
        return {**values, **{name: at for name, at in days.items() if at is not None}}


def _midnight(day: str, zone: ZoneInfo, later: int) -> int | None:
    """The beginning of a day, or of one so many days later, in microseconds since 1970; None where there is no such day."""
    try:
        at = date.fromisoformat(day) + timedelta(days=later)
    except (ValueError, OverflowError):
        return None
    return int(datetime(at.year, at.month, at.day, tzinfo=zone).timestamp() * 1_000_000)


def _zone() -> ZoneInfo:
    return ZoneInfo(watch().settings.site.timezone)


@page("/audit", "Audit", "see audit")
async def audit() -> None:
    """The page."""
    ui.label(_("Audit")).classes("text-2xl").props("role=heading aria-level=1")
    _Ledger()
    await _Trail().draw()


class _Trail:
    """The filters, and a page of rows: each is read when it is asked for, and no row moves by itself."""

    def __init__(self) -> None:
        self.wanted = Wanted()
        self.rows: list[Audit] = []
        self.ends: list[int] = []  # of the pages before this one, the id that each began below
        self.words = {**actions.commands(), **actions.others()}

    async def draw(self) -> None:
        """Filters, table, and the ways to other pages."""
        names = [one.name for one in await asyncio.to_thread(watch().reader.accounts)]
        with ui.row().classes("w-full items-end gap-3"):
            ui.input(_("Who"), autocomplete=names, on_change=self._filter).bind_value(self.wanted, "actor").props("dense clearable")
            what = ui.select(self.words, label=_("Did what"), clearable=True, on_change=self._filter).bind_value(
                self.wanted, "action"
            )
            what.props("dense").classes("min-w-[14rem]")
            subject = ui.input(_("On what"), placeholder=_("specimen 12345"), on_change=self._filter)
            subject.bind_value(self.wanted, "subject").props("dense clearable debounce=400")
            for title, name in ((_("From"), "first"), (_("Until"), "last")):
                day = ui.input(title, on_change=self._filter).bind_value(self.wanted, name)
                day.props("dense type=date stack-label")
            ui.space()
            self.export = ui.link(_("Export as CSV"), "/audit.csv").classes("lb-link").props("download")
        self.table = ui.table(rows=[], columns=self._shown(), row_key="id", pagination=0).classes("w-full lb-audit")
        self.table.props("flat dense wrap-cells hide-pagination").on("open", self._open)
        self.table.add_slot("body-cell-open", _OPEN.format(word=_("All of it")))
        with ui.row().classes("items-center gap-3"):
            self.newer = ui.button(_("Newer"), icon="chevron_left", on_click=self._newer).props("flat no-caps")
            self.older = ui.button(_("Older"), icon="chevron_right", on_click=self._older).props("flat no-caps")
            self.told = ui.label().classes("lb-quiet").props("role=status")
        await self._show()

    def _columns(self) -> list[dict[str, Any]]:
        titles = {
            "at": _("When"),
            "actor": _("Who"),
            "action": _("Did what"),
            "subject": _("On what"),
            "reason": _("Reason"),
            "old": _("Before"),
            "new": _("After"),
        }
        rigid = {"at": "white-space: nowrap", "actor": "min-width: 5rem"}
        return [
            {"name": name, "label": title, "field": name, "align": "left", "style": rigid.get(name, "min-width: 7rem")}
            for name, title in titles.items()
        ]

    def _shown(self) -> list[dict[str, Any]]:
        return [*self._columns(), {"name": "open", "label": _("All of it"), "field": "id", "align": "right"}]

    async def _filter(self) -> None:
        self.ends.clear()
        await self._show()

    async def _older(self) -> None:
        self.ends.append(self.rows[-1].id)
        await self._show()

    async def _newer(self) -> None:
        self.ends = self.ends[:-1]
        await self._show()

    async def _show(self) -> None:
        conditions = self.wanted.conditions(_zone())
        before = self.ends[-1] if self.ends else 2**62
        try:
            rows = await asyncio.to_thread(watch().reader.audit_trail, before=before, limit=PAGE + 1, **conditions)
        except StoreError as error:
            ui.notify(shown(str(error)), type="negative")
            return
        self.rows = rows[:PAGE]
        self.table.rows = [self._row(row) for row in self.rows]
        self.newer.set_enabled(bool(self.ends))
        self.older.set_enabled(len(rows) > PAGE)
        self.told.set_text("" if rows else _("Nothing was done like this."))
        asked = {name: value for name, value in msgspec.structs.asdict(self.wanted).items() if value}
        self.export.props(f'href="/audit.csv?{urlencode(asked)}"')

    def _row(self, row: Audit) -> dict[str, Any]:
        old, new = _told(row.old, row.new), _told(row.new, row.old)
        given = {"actor": row.actor, "subject": row.subject, "reason": row.reason, "old": old, "new": new}
        texts = {name: shown(text)[:SHORT] for name, text in given.items()}
        return {**texts, "id": row.id, "at": time_text(row.at), "action": self.words.get(row.action, shown(row.action)[:SHORT])}

    def _open(self, event: Any) -> None:
        """All of one row, however long it is."""
        row = next((one for one in self.rows if one.id == event.args), None)
        if row is None:
            return
        with ui.dialog(value=True).props(f'aria-label="{_("All of it")}"') as dialog, ui.card().classes("w-[48rem] max-w-full"):
            dialog.on("hide", dialog.delete)
            for column in self._columns():
                text = _moment(row) if column["name"] == "at" else shown(str(getattr(row, column["name"])))
                ui.label(column["label"]).classes("lb-quiet text-sm")
                ui.label(text or "–").classes("font-mono whitespace-pre-wrap break-all")
            ui.button(_("Close"), on_click=dialog.close).props("flat no-caps autofocus")


class _Ledger:
    """Where the chain ends, how long it is, and what its last verification found."""

    def __init__(self) -> None:
        with ui.element("section").classes("lb-card w-full").props(f'aria-label="{_("The ledger")}"'):
            with ui.row().classes("w-full items-center gap-x-6 gap-y-1"):
                ui.label(_("The ledger")).classes("text-lg font-medium").props("role=heading aria-level=2")
                self.length = ui.label()
                with ui.row().classes("items-center gap-1"):
                    self.icon = ui.icon("help").classes("text-xl").props("aria-hidden=true")
                    self.told = ui.label().props("role=status")
                ui.space()
                self.button = ui.button(_("Verify now"), on_click=self._verify).props("no-caps outline")
            self.head = ui.label().classes("font-mono text-sm break-all lb-quiet")
            self.progress = ui.linear_progress(0, show_value=False).props(f'aria-label="{_("Verification")}"')
            self.problems = ui.column().classes("gap-0")
        self.timer = ui.timer(0.5, self._show)

    async def _verify(self) -> None:
        background_tasks.create(proof.run(watch().path), name="verification")
        self.timer.activate()

    async def _show(self) -> None:
        """As it stands; looked at again only while a verification runs."""
        running = proof.share is not None
        self.progress.set_visibility(running)
        self.progress.set_value(proof.share or 0.0)
        self.button.set_enabled(not running)
        icon, tone, text = _verdict()
        self.icon.set_name(icon)
        self.icon.classes(remove="lb-good lb-bad lb-quiet", add=tone)
        self.told.set_text(text)
        if not running:
            self.timer.deactivate()
            head = await asyncio.to_thread(watch().reader.head)
            self.head.set_text(_("It ends at {head}", head=head))
            self.length.set_text(_("{n} transactions", n=number_text(head.sequence)))
            self.problems.clear()
            with self.problems:
                for problem in proof.result.problems if proof.result else ():
                    ui.label(shown(problem)[:SHORT]).classes("lb-bad")


def _verdict() -> tuple[str, str, str]:
    """Icon, colour and words of the last verification."""
    if proof.share is not None:
        return "hourglass_empty", "lb-quiet", _("being verified: {n} %", n=int(proof.share * 100))
    if proof.error:
        return "error", "lb-bad", _("It could not be verified: {why}", why=shown(proof.error)[:SHORT])
    if proof.result is None:
        return "help", "lb-quiet", _("not verified since the console started")
    when, facts = time_text(proof.at), number_text(proof.result.facts)
    if proof.result.problems:
        told = _("{time}: CHANGED. Stop labbridge, copy the database as it is, and see the operations guide.", time=when)
        return "error", "lb-bad", told
    return "verified", "lb-good", _("{time}: {n} facts are as they were written", time=when, n=facts)


def _told(text: str, other: str) -> str:
    """A value before or after a change for people: of several named ones, those that differ."""
    try:
        named, others = msgspec.json.decode(text, type=dict[str, Any]), msgspec.json.decode(other or "{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        return text
    different = {name: value for name, value in named.items() if name not in others or others[name] != value}
    return ", ".join(f"{name} {value}" for name, value in different.items())


def _moment(row: Audit) -> str:
    return datetime.fromtimestamp(row.at / 1e6, _zone()).isoformat(sep=" ", timespec="seconds")


# -- as a file -------------------------------------------------------------------------------------------------------


async def export(request: HttpRequest) -> Response:
    """The rows of a filter as CSV for a spreadsheet, in pages, however many there are."""
    user = request.scope[session.KEY]
    if not roles.may(user.role, "see audit"):
        return PlainTextResponse(_("Your role may not see this page."), 403)
    asked = request.query_params
    wanted = Wanted(**{name: asked[name][:SHORT] for name in Wanted.__struct_fields__ if name in asked})
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"', "Cache-Control": "no-store"}
    return StreamingResponse(_lines(wanted.conditions(_zone())), media_type="text/csv; charset=utf-8", headers=headers)


def _lines(conditions: dict[str, Any]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    text.write("\ufeff")  # a spreadsheet takes it for UTF-8
    writer.writerow(("id", *list(Audit.__struct_fields__)[1:]))
    before = 2**62
    while rows := watch().reader.audit_trail(before=before, limit=EXPORT, **conditions):
        for row in rows:
            before = row.id
            values = (row.actor, row.action, row.subject, row.reason, row.old, row.new)
            writer.writerow((row.id, _moment(row), *map(_cell, values)))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def _cell(text: str) -> str:
    """The text, which no spreadsheet may take for a formula."""
    text = shown(text)
    return f"'{text}" if text.startswith(FORMULA) else text


app.add_route("/audit.csv", export, ["GET"])
