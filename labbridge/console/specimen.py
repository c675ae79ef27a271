"""Specimen: the whole story of one tube on one page, what it measured, and the messages themselves beside it."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from labbridge import passport
from labbridge.console import deeds
from labbridge.console.acting import act, ask_reason
from labbridge.console.bodies import Bodies
from labbridge.console.frame import page
from labbridge.console.keys import on_keys
from labbridge.console.printing import printed as printed  # whose address is to be looked at before ours
from labbridge.console.results import results_panel
from labbridge.console.session import can, user
from labbridge.console.tables import plain_table
from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.store.rows import Message
from labbridge.views.story import Event, Known, known, message_event, state_text, story
from labbridge.views.texts import _, clock_text, day_text, number_text, time_text

EVENTS = 60  # shown at once, the newest
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
_TONES = {
    "good": ("check_circle", "lb-good"),
    "bad": ("error", "lb-bad"),
    "wait": ("hourglass_top", "lb-warn"),
    "": ("", ""),  # the event's own
}
_STATES = {"released": "good", "held": "wait", "rejected": "bad"}  # of a report


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
    event = message_event(message)
    ui.label(event.title).classes("text-2xl")
    for line in (f"{time_text(message.at)} · {state_text(message.state)}", *event.lines):
        ui.label(line)

    async def settle() -> None:
        if await with_reason("reject", _("Settle message"), specimen=f"#{message.id}"):
            ui.navigate.reload()

    if message.state == "open" and can("reject"):
        ui.button(_("Settle message"), on_click=settle).props("no-caps")
    await Bodies().show("message", message.id)


def address(specimen: str) -> str:
    """The address of a specimen's page."""
    return f"/specimen/{quote(specimen, safe='')}"


async def with_reason(command: str, title: str, **fields: Any) -> bool:
    """Asks for a reason under a title, then sends a command; whether it was done."""
    reason = await ask_reason(title)
    return reason is not None and (await act(command, reason=reason, **fields)).ok


class _Page:
    """The parts of the page of a known specimen."""

    def __init__(self, specimen: str, found: Known) -> None:
        self.specimen, self.found = specimen, found
        self.events = story(found)
        self.first = max(0, len(self.events) - EVENTS)  # of those that are shown
        self.drawn: list[tuple[Event, ui.column]] = []

    async def draw(self) -> None:
        """Header, results, time line with the messages beside it."""
        self._header()
        with ui.element("section").classes("w-full lb-card max-h-[65vh] overflow-auto") as place:
            place.props(f'tabindex=0 aria-label="{_("Results")}"')
            self.panel = await results_panel(self.specimen, named=False)
        with ui.row().classes("w-full gap-6 items-start flex-col lg:flex-row lg:flex-nowrap"):
            with ui.column().classes("w-full lg:w-5/12 min-w-0 gap-2"):
                ui.label(_("Story")).classes("text-xl").props('role="heading" aria-level=2')
                self.earlier = ui.button(icon="expand_less", on_click=self._more).props("flat dense no-caps")
                self.line = ui.column().classes("w-full gap-1")
                self.revisions = ui.expansion().classes("w-full text-sm")
            with ui.column().classes("w-full lg:w-7/12 min-w-0 gap-2 lg:sticky lg:top-16"):
                ui.label(_("Message")).classes("text-xl").props('role="heading" aria-level=2')
                self.bodies = Bodies()
        self._show()
        for message in self.found.trace.messages[-1:]:
            await self.bodies.show("message", message.id)
        on_keys(lambda key: deeds.press(self.panel, key))
        watch().on_change("queue", self._again)

    def _header(self) -> None:
        with ui.row().classes("w-full items-center gap-6"):
            ui.label(brief(self.specimen, 60)).classes("text-3xl font-mono font-bold").props('role="heading" aria-level=1')
            self.states = ui.row().classes("gap-6")
            ui.space()
            if can("export"):
                ui.button(_("Export"), icon="download", on_click=self._export).props("outline no-caps")
            ui.link(_("Print"), f"{address(self.specimen)}/print").classes("text-base")
        self.others = ui.label().classes("lb-warn")
        self._presence()

    def _presence(self) -> None:
        others = sorted(watch().present.get(self.specimen, set()) - {user().account})
        self.others.set_text(_("Also open at the moment: {names}", names=", ".join(map(brief, others))))
        self.others.set_visibility(bool(others))

    def _show(self) -> None:
        """What follows from what is known: how its reports stand, the story, the rules that decided."""
        trace = self.found.trace
        self.states.clear()
        with self.states:
            for state, count in Counter(row.state for row in trace.reports).items():
                icon, colour = _TONES[_STATES.get(state, "")]
                with ui.row().classes(f"items-center gap-1 {colour}"):
                    ui.icon(icon or "history").props("aria-hidden=true")
                    ui.label(f"{state_text(state)}: {number_text(count)}")
        self._story()
        counts = Counter(row.revision for row in trace.decisions)
        used = [(one.digest.hex()[:12], time_text(one.at), number_text(counts[one.id])) for one in self.found.revisions]
        self.revisions.set_text(_("Revisions used: {count}", count=len(used)))
        self.revisions.clear()
        with self.revisions:
            plain_table((_("revision"), _("in force since"), _("decisions")), used)

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
        icon, colour = _TONES[event.tone]
        with ui.row(wrap=False).classes("w-full gap-2 items-start lb-event").props(f"data-what={event.what}"):
            ui.label(clock_text(event.at)).classes("font-mono text-sm w-16 shrink-0")
            ui.icon(icon or _ICONS[event.what]).classes(f"text-lg shrink-0 {colour}").props("aria-hidden=true")
            with ui.column().classes("gap-0 grow min-w-0"):
                ui.label(event.title).classes(f"break-words w-full {colour}")
                for line in event.lines:
                    ui.label(line).classes("text-sm break-words w-full")
                details = ui.column().classes("w-full text-sm overflow-x-auto")
            if event.again and can("send-again"):
                title = _("Send delivery {id} again", id=event.again)
                _button("redo", _("Send again"), lambda: with_reason("send-again", title, deliveries=[event.again]))
            if event.table:
                _button("table_rows", _("Results"), lambda: _unfold(details, event.table))
            if opens := event.opens:
                _button("article", _("Show the message"), lambda: self.bodies.show(*opens))

    def _more(self) -> None:
        self.first = max(0, self.first - 10 * EVENTS)
        self._story()

    async def _again(self) -> None:
        """Something changed in the store: draws anew what is of this specimen."""
        before = self.found
        self.found = await asyncio.to_thread(known, watch().reader, self.specimen, before)
        self._presence()
        if (self.found.trace, self.found.audits) != (before.trace, before.audits):
            self.events = story(self.found)
            self._show()
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
        if (await act("export", specimen=self.specimen, quiet=True)).ok:
            name = re.sub("[^0-9A-Za-z._-]", "_", self.specimen)[:80].lstrip(".")
            ui.download.content(text.encode(), f"{name or 'specimen'}.json", "application/json")


def _button(icon: str, name: str, pressed: Any) -> None:
    ui.button(icon=icon, on_click=pressed).props(f'flat dense round size=sm aria-label="{name}"').tooltip(name)


def _unfold(place: ui.column, table: Sequence[Sequence[str]]) -> None:
    """Shows a table, or takes it away again."""
    if list(place):
        place.clear()
        return
    with place:
        plain_table(table[0], table[1:])
