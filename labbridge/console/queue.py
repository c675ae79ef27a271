"""Queue: what waits for each hospital, what it refused and in which words, and the acts that set it going again."""

import asyncio
import time
from functools import cache, partial
from typing import Any
from zoneinfo import ZoneInfo

from nicegui import ui

from labbridge.console.acting import act, ask
from labbridge.console.frame import page
from labbridge.console.session import can
from labbridge.console.specimen import address, with_reason
from labbridge.console.tables import Cell, plain_table
from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.store.rows import Queued
from labbridge.views import cards
from labbridge.views.story import words_of
from labbridge.views.texts import _, age_text, number_text, time_text
from labbridge.views.waiting import PAGE, Accepted, Figures, Line, Picture, State, picture


@cache
def _figures() -> Figures:
    """The counts that all pages share."""
    return Figures(watch().reader, Accepted(watch().reader, ZoneInfo(watch().settings.site.timezone)))


@page("/queue", "Queue", "see queue")
async def queue() -> None:
    """The page."""
    await _Page().draw()


class _Card:
    """How one destination stands: drawn once, then changed in place, so that nobody's focus is lost."""

    def __init__(self, name: str, page: "_Page") -> None:
        self.name = name
        with ui.card().classes("min-w-[20rem] gap-1").props(f'role="region" aria-label="{name}"'):
            with ui.row(wrap=False).classes("w-full items-center gap-1"):
                ui.label(name).classes("text-xl font-medium").props('role="heading" aria-level=2')
                ui.space()
                self.icon = ui.icon("help").props("aria-hidden=true")
                self.word = ui.label().classes("font-medium")
            with ui.row().classes("w-full gap-6"):
                self.figures = [_figure(one) for one in (_("waiting"), _("retrying"), _("refused"), _("delivered today"))]
            self.why = ui.label().classes("text-sm whitespace-pre-line min-h-[2.5rem]")
            with ui.row().classes("w-full gap-2"):
                self.retry = _button(_("Retry all refused"), lambda: page.retry_all(name))
                self.resume = _button(_("Resume"), lambda: page.do("resume", destination=name))
                title = _("Pause {destination}", destination=name)
                self.pause = _button(_("Pause"), lambda: page.do("pause", title, destination=name), "outline")

    def show(self, stands: dict[str, Any], found: Picture) -> None:
        """Takes what the daemon says of it, and what the store has."""
        waiting, refused = (found.counts.get((self.name, state), (0, 0))[0] for state in ("queued", "refused"))
        values = (waiting, stands.get("retrying", 0), refused, found.today.get(self.name, 0))
        for label, value in zip(self.figures, values, strict=True):
            label.set_text(number_text(value))
        unknown = cards.State(_("unknown"), "help", "bad")
        state = cards.destination(watch(), stands, time.time()).state if stands else unknown
        self.icon.set_name(state.icon)
        self.word.set_text(state.word)
        for element in (self.icon, self.word):
            element.classes(remove="lb-good lb-warn lb-bad", add=f"lb-{state.tone}")
        self.why.set_text("\n".join(_why(stands)))
        paused = bool(stands.get("paused"))
        self.retry.set_visibility(bool(refused) and can("retry"))
        self.resume.set_visibility(paused and can("resume"))
        self.pause.set_visibility(bool(stands) and not paused and can("pause"))


class _Page:
    """The parts of the page, and which list is open."""

    def __init__(self) -> None:
        self.names = [destination.name for destination in watch().settings.destinations]
        self.destination = self.names[0] if self.names else ""
        self.state: State = "refused"
        self.offset = 0
        self.picture = self.drawn = Picture()

    async def draw(self) -> None:
        """A card for each destination, and the list below."""
        with ui.column().classes("w-full max-w-[1800px] mx-auto p-4 gap-4"):
            ui.label(_("Queue")).classes("text-2xl").props('role="heading" aria-level=1')
            with ui.row().classes("w-full gap-4 items-stretch"):
                self.cards = [_Card(name, self) for name in self.names]
            with ui.row().classes("w-full items-center gap-4"):
                if len(self.names) > 1:
                    ui.toggle(self.names, value=self.destination, on_change=lambda event: self._turn(destination=event.value))
                states = {"refused": _("Refused"), "queued": _("Waiting"), "sent": _("Sent")}
                ui.toggle(states, value=self.state, on_change=lambda event: self._turn(state=event.value)).props("no-caps")
                self.news = _button(_("The list has changed: show it"), self._list, "flat")
            self.list = ui.column().classes("w-full gap-2")
        await self._turn()
        watch().on_change("status", self._status)
        watch().on_change("queue", self._changed)

    async def _read(self, fresh: bool = False) -> None:
        which = self.destination, self.state, self.offset
        self.picture = await asyncio.to_thread(picture, watch().reader, _figures(), *which, fresh)
        self._status()

    async def _changed(self) -> None:
        """Something happened: the figures follow, the rows wait until somebody wants to see them."""
        await self._read()
        if not self.drawn.lines:
            self._list()
        self.news.set_visibility(self.drawn.lines != self.picture.lines)

    async def _turn(self, destination: str | None = None, state: State | None = None, offset: int = 0) -> None:
        """Opens another list, or another page of it."""
        self.destination, self.state, self.offset = destination or self.destination, state or self.state, offset
        await self._read(fresh=True)
        self._list()

    def _status(self) -> None:
        stands = {one["name"]: one for one in watch().status.get("destinations", ())}
        for card in self.cards:
            card.show(stands.get(card.name, {}), self.picture)

    # -- what can be done ------------------------------------------------------------------------------------------

    async def do(self, command: str, title: str = "", **fields: Any) -> None:
        """Sends a command, with the reason that is asked for under a title, then shows what became of the list."""
        await (with_reason(command, title, **fields) if title else act(command, **fields))
        await self._turn(offset=self.offset)

    async def retry_all(self, name: str) -> None:
        """Asks, since there may be many, then retries what a destination refused."""
        count = number_text(self.picture.counts.get((name, "refused"), (0, 0))[0])
        told = _("Send {count} refused deliveries to {destination} again?", count=count, destination=name)
        if await ask(_("Retry all refused"), (), told=told) is not None:
            await self.do("retry", everything=True, destination=name)

    # -- the list --------------------------------------------------------------------------------------------------

    def _list(self) -> None:
        """Draws the rows that were read last."""
        self.drawn = self.picture
        self.news.set_visibility(False)
        self.list.clear()
        with self.list:
            if not self.drawn.lines:
                nothing = {"refused": _("Nothing was refused."), "queued": _("Nothing waits."), "sent": _("Nothing was sent yet.")}
                ui.label(nothing[self.state]).classes("text-lg p-4")
                return
            if self.offset or len(self.drawn.lines) == PAGE:
                self._pages(len(self.drawn.lines))
            heads = [_("delivery"), _("specimen"), _("since"), _("behind it"), _("the hospital's last words"), _("actions")]
            with ui.element("div").classes("w-full overflow-x-auto lb-queue"):
                plain_table(heads, map(self._cells, self.drawn.lines))

    def _pages(self, shown: int) -> None:
        """Where the list stands, and the way to what comes before and after."""
        with ui.row().classes("w-full items-center"):
            ui.label(_("{first} to {last}", first=number_text(self.offset + 1), last=number_text(self.offset + shown)))
            for icon, name, step in (("chevron_left", _("Earlier page"), -PAGE), ("chevron_right", _("Later page"), PAGE)):
                button = ui.button(icon=icon, on_click=partial(self._turn, offset=self.offset + step))
                button.props(f'flat dense round aria-label="{name}"')
                button.set_enabled(self.offset > 0 if step < 0 else shown == PAGE)

    def _cells(self, line: Line) -> tuple[Cell, ...]:
        """A delivery; the specimen and the hospital's words for who may know of patients."""
        one, last, knows = line.delivery, line.last, can("see specimen")
        name = brief(one.specimen, 40) if knows else ""
        specimen: Cell = partial(ui.link, name, address(one.specimen)) if name else ""
        said = (brief(last.outcome.partition(" ")[2], 20), words_of(last) if knows else "") if last else ()
        behind = number_text(line.behind) if line.behind else ""
        return str(one.id), specimen, time_text(one.at), behind, " — ".join(filter(None, said)), partial(self._buttons, one)

    def _buttons(self, one: Queued) -> None:
        """What can be done with one delivery."""
        do = partial(self.do, deliveries=[one.id])
        with ui.row(wrap=False).classes("gap-1"):
            if one.state == "refused" and can("retry"):
                _button(_("Retry"), lambda: do("retry")).tooltip(_("The same message again"))
            if one.state in ("delivered", "cancelled") and can("send-again"):
                again = _button(_("Send again"), lambda: do("send-again", _("Send delivery {id} again", id=one.id)), "outline")
                again.tooltip(_("A new message with a number of its own"))
            if one.state in ("queued", "refused") and can("cancel"):
                _button(_("Cancel"), lambda: do("cancel", _("Cancel delivery {id}", id=one.id)), "flat")


def _button(text: str, pressed: Any, look: str = "") -> ui.button:
    return ui.button(text, on_click=pressed).props(f"dense no-caps {look}")


def _figure(name: str) -> ui.label:
    with ui.column().classes("gap-0 items-center"):
        value = ui.label().classes("text-3xl font-medium")
        ui.label(name).classes("text-sm")
    return value


def _why(stands: dict[str, Any]) -> list[str]:
    """What keeps a destination from delivering, and when it is tried again."""
    lines = []
    if stands.get("oldest"):
        lines.append(_("The oldest waits for {age}", age=age_text(stands["oldest"])))
    if stands.get("down") and stands.get("why"):
        lines.append(_("Why: {why}", why=brief(stands["why"])))
    if stands.get("answer"):
        lines.append(_("Its last answer accepted nothing: {codes}", codes=brief(stands["answer"])))
    if stands.get("retrying"):
        lines.append(_("The next try is in {age}", age=age_text(stands["next_try"])))
    return lines
