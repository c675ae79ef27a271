"""Specimen: the whole story of one tube on one page, what it measured, and the messages themselves beside it."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from nicegui import ui

from labbridge import passport
from labbridge.console import deeds
from labbridge.console.acting import act, ask_reason
from labbridge.console.bodies import Bodies, text_table
from labbridge.console.frame import page
from labbridge.console.keys import on_keys
from labbridge.console.printing import printed  # whose address is to be looked at before ours
from labbridge.console.results import results_panel
from labbridge.console.session import can, user
from labbridge.console.story import Event, state_text, story
from labbridge.console.texts import _, clock_text, day_text, number_text, reason_text, time_text
from labbridge.console.watch import watch
from labbridge.model import Reason
from labbridge.showing import brief
from labbridge.store import Reader
from labbridge.store.rows import Audit, Message, Revision, Trace

__all__ = ["address", "printed", "specimen"]

EVENTS = 60  # shown at once, the newest
AUDITS = 500
_ICONS = {
    "message": "input",
    "reading": "menu_book",
    "mapping": "swap_horiz",
    "verdict": "gavel",
    "person": "person",
    "delivery": "outbox",
    "answer": "local_hospital",
    "audit": "visibility",
}
_TONES = {"good": ("check_circle", "lb-good"), "bad": ("error", "lb-bad"), "wait": ("hourglass_top", "lb-warn")}


class Known(msgspec.Struct, frozen=True):
    """What the store has of a specimen."""

    trace: Trace
    audits: tuple[Audit, ...]
    revisions: tuple[Revision, ...]
    until: int  # the audit was looked through up to this id

    @property
    def marks(self) -> tuple[int, ...]:
        """What grows when something happens to the specimen."""
        trace = self.trace
        states = [row.state for row in trace.reports] + [row.state for row in trace.deliveries]
        counts = (len(trace.messages), len(trace.decisions), len(trace.attempts), len(self.audits))
        return (*counts, hash(tuple(states)))


def known(reader: Reader, specimen: str, before: Known | None = None) -> Known:
    """Reads it all; of the audit, which may be long, only what came after ``before``."""
    trace, until = reader.trace(specimen), reader.last_audit()
    subjects = [f"specimen {specimen}", specimen]
    subjects += [f"message {row.id}" for row in trace.messages] + [f"report {row.report_id}" for row in trace.reports]
    subjects += [f"delivery {row.id}" for row in trace.deliveries]
    read = reader.audits(subjects, before.until if before else 0) if trace.reports else []
    audits = (*(before.audits if before else ()), *read)[-AUDITS:]
    revisions = reader.rows(Revision, "id", {row.revision for row in trace.decisions}, large=False)
    return Known(trace, audits, tuple(revisions), max(until, audits[-1].id if audits else 0))


@page("/specimen/{specimen:path}", "Specimen", "see specimen")
async def specimen(specimen: str) -> None:
    """The page of one specimen; of one message, where its name is ``#NUMBER``."""
    found = await asyncio.to_thread(known, watch().reader, specimen)
    number = re.fullmatch("#([0-9]{1,18})", specimen)
    with ui.column().classes("w-full max-w-[1800px] mx-auto p-4 gap-4"):
        if found.trace.reports:
            await _Page(specimen, found).draw()
        elif number and (message := await asyncio.to_thread(watch().reader.message, int(number[1]))):
            await _one_message(message)
        else:
            await _unknown(specimen)


async def _unknown(specimen: str) -> None:
    """Says so plainly, and what there is."""
    ui.label(_("Nothing is known of specimen {specimen}.", specimen=brief(specimen))).classes("text-2xl").props('role="alert"')
    ui.label(_("No analyzer has sent a result for it. Scan it again, or look at what could not be read on Pending."))
    near = await asyncio.to_thread(watch().reader.specimens_near, specimen)
    if near:
        ui.label(_("Specimens whose ids begin alike:"))
        with ui.row().classes("gap-4"):
            for one in near:
                ui.link(brief(one), address(one)).classes("text-lg font-mono")


async def _one_message(message: Message) -> None:
    """A message that belongs to no specimen: why, and its bytes."""
    ui.label(_("Message {id} from {analyzer}", id=message.id, analyzer=brief(message.analyzer))).classes("text-2xl")
    ui.label(f"{time_text(message.at)} · {message.kind} · {state_text(message.state)}")
    note = msgspec.json.decode(message.note.encode() or b"[]", type=list[Reason])
    ui.label(brief(reason_text(note), 1000))

    async def settle() -> None:
        reason = await ask_reason(_("Settle message"))
        if reason and (await act("reject", specimen=f"#{message.id}", reason=reason)).ok:
            ui.navigate.reload()

    if message.state == "open" and can("reject"):
        ui.button(_("Settle message"), on_click=settle).props("no-caps")
    await Bodies().show("message", message.id)


def address(specimen: str) -> str:
    """The address of a specimen's page."""
    return f"/specimen/{quote(specimen, safe='')}"


class _Page:
    """The parts of the page of a known specimen."""

    def __init__(self, specimen: str, found: Known) -> None:
        self.specimen, self.found = specimen, found
        self.events = story(found.trace, found.audits)
        self.first = max(0, len(self.events) - EVENTS)  # of those that are shown
        self.drawn: list[tuple[Event, ui.column]] = []

    async def draw(self) -> None:
        """Header, results, time line with the messages beside it."""
        self._header()
        with ui.element("section").classes("w-full lb-card max-h-[65vh] overflow-auto") as place:
            place.props(f'tabindex=0 aria-label="{_("Results")}"')
            self.panel = await results_panel(self.specimen, named=False)
        with ui.row().classes("w-full gap-6 items-start flex-col lg:flex-row lg:flex-nowrap"):
            with ui.column().classes("w-full lg:w-5/12 gap-2"):
                ui.label(_("Story")).classes("text-xl").props('role="heading" aria-level=2')
                self.earlier = ui.button(icon="expand_less", on_click=self._more).props("flat dense no-caps")
                self.line = ui.column().classes("w-full gap-1")
                self._story()
                self._revisions()
            with ui.column().classes("w-full lg:w-7/12 gap-2 lg:sticky lg:top-16"):
                ui.label(_("Message")).classes("text-xl").props('role="heading" aria-level=2')
                self.bodies = Bodies()
        newest = self.found.trace.messages[-1:]
        for message in newest:
            await self.bodies.show("message", message.id)
        on_keys(lambda key: deeds.press(self.panel, key))
        watch().on_change("queue", self._again)
        ui.context.client.on_connect(self._again)  # what changed before the browser was there

    def _header(self) -> None:
        states = Counter(row.state for row in self.found.trace.reports)
        with ui.row().classes("w-full items-center gap-6"):
            ui.label(brief(self.specimen, 60)).classes("text-3xl font-mono font-bold").props('role="heading" aria-level=1')
            for state, count in states.items():
                icon, colour = _TONES[{"released": "good", "held": "wait", "rejected": "bad"}.get(state, "wait")]
                with ui.row().classes(f"items-center gap-1 {colour}"):
                    ui.icon(icon).props("aria-hidden=true")
                    ui.label(f"{state_text(state)}: {number_text(count)}")
            ui.space()
            if can("export"):
                ui.button(_("Export"), icon="download", on_click=self._export).props("outline no-caps")
            ui.link(_("Print"), f"{address(self.specimen)}/print").classes("text-base")
        self.others = ui.label().classes("lb-warn")
        self._presence()

    def _presence(self) -> None:
        others = sorted(watch().present.get(self.specimen, set()) - {user().account})
        self.others.set_text(_("Also open at the moment: {names}", names=", ".join(map(brief, others))) if others else "")
        self.others.set_visibility(bool(others))

    def _story(self) -> None:
        """The events by days, oldest first; those that are as they were stay untouched, and open where they are open."""
        events = self.events[self.first :]
        same = next((n for n, (event, _row) in enumerate(self.drawn) if [event] != events[n : n + 1]), len(self.drawn))
        for _event, row in self.drawn[same:]:
            row.delete()
        del self.drawn[same:]
        self.earlier.set_visibility(self.first > 0)
        self.earlier.set_text(_("{count} earlier events", count=number_text(self.first)))
        with self.line:
            for number, event in enumerate(events[same:], same):
                with ui.column().classes("w-full gap-0") as row:
                    if not number or day_text(event.at) != day_text(events[number - 1].at):
                        ui.label(day_text(event.at)).classes("text-sm font-medium mt-2").props('role="heading" aria-level=3')
                    self._event(event)
                self.drawn.append((event, row))

    def _event(self, event: Event) -> None:
        icon, colour = _TONES.get(event.tone, ("", ""))
        with ui.row(wrap=False).classes("w-full gap-2 items-start lb-event").props(f"data-what={event.what}"):
            ui.label(clock_text(event.at)).classes("font-mono text-sm w-16 shrink-0")
            ui.icon(icon or _ICONS[event.what]).classes(f"text-lg shrink-0 {colour}").props("aria-hidden=true")
            with ui.column().classes("gap-0 grow min-w-0"):
                ui.label(event.title).classes(f"break-words w-full {colour}")
                for line in event.lines:
                    ui.label(line).classes("text-sm break-words w-full")
                details = ui.column().classes("w-full")
            if event.again and can("send-again"):
                button = ui.button(icon="redo", on_click=lambda: self._send_again(event.again)).props("flat dense round size=sm")
                button.props(f'aria-label="{_("Send again")}"').tooltip(_("Send again"))
            if event.table:
                button = ui.button(icon="table_rows", on_click=lambda: _unfold(details, event.table)).props(
                    "flat dense round size=sm"
                )
                button.props(f'aria-label="{_("Results")}"').tooltip(_("Results"))
            if event.opens:
                opens = event.opens
                button = ui.button(icon="article", on_click=lambda: self.bodies.show(*opens)).props("flat dense round size=sm")
                button.props(f'aria-label="{_("Show the message")}"').tooltip(_("Show the message"))

    async def _send_again(self, delivery: int) -> None:
        """A new message, with a number of its own."""
        if reason := await ask_reason(_("Send delivery {id} again", id=delivery)):
            await act("send-again", deliveries=[delivery], reason=reason)

    def _more(self) -> None:
        self.first = max(0, self.first - 10 * EVENTS)
        self._story()

    def _revisions(self) -> None:
        """Which rules decided: the revisions, and how many decisions each made."""
        counts = Counter(row.revision for row in self.found.trace.decisions)
        with ui.expansion(_("Revisions used: {count}", count=len(self.found.revisions))).classes("w-full text-sm"):
            rows = [(_("revision"), _("in force since"), _("decisions"))]
            for one in self.found.revisions:
                rows.append((one.digest.hex()[:12], time_text(one.at), number_text(counts[one.id])))
            text_table(rows)

    async def _again(self) -> None:
        """Something changed in the store: draws anew what is of this specimen."""
        found = await asyncio.to_thread(known, watch().reader, self.specimen, self.found)
        self._presence()
        if found.marks != self.found.marks:
            self.found, self.events = found, story(found.trace, found.audits)
            self._story()
            if self.panel.idle:
                await self.panel.load()

    async def _export(self) -> None:
        """The passport, as a file."""
        try:
            document = await asyncio.to_thread(passport.passport, watch().reader, self.specimen)
        except passport.PassportError as error:
            ui.notify(_("It cannot be exported: {why}", why=error), type="negative", timeout=0, close_button=_("Close"))
            return
        text = await asyncio.to_thread(json.dumps, document, ensure_ascii=False)
        if not (await act("export", specimen=self.specimen, quiet=True)).ok:
            return
        name = re.sub("[^0-9A-Za-z._-]", "_", self.specimen)[:80].lstrip(".")
        ui.download.content(text.encode(), f"{name or 'specimen'}.json", "application/json")


def _unfold(place: ui.column, table: Sequence[Sequence[str]]) -> None:
    """Shows a table, or takes it away again."""
    if list(place):
        place.clear()
        return
    with place:
        text_table(table)
