"""Queue: what waits for each hospital, what it refused and in which words, and the acts that set it going again."""

import asyncio
from typing import Any
from zoneinfo import ZoneInfo

from nicegui import ui

from labbridge.console.acting import act, ask_reason
from labbridge.console.frame import page
from labbridge.console.session import can
from labbridge.console.specimen import address
from labbridge.console.story import words_of
from labbridge.console.texts import _, age_text, number_text, time_text
from labbridge.console.waiting import PAGE, Accepted, Figures, Line, Picture, State, picture
from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.store.rows import Attempt, Queued

_figures: list[Figures] = []


@page("/queue", "Queue", "see queue")
async def queue() -> None:
    """The page."""
    if not _figures:
        accepted = Accepted(watch().reader, ZoneInfo(watch().settings.site.timezone))
        _figures.append(Figures(watch().reader, accepted))
    await _Page().draw()


class _Card:
    """How one destination stands: drawn once, then changed in place, so that nobody's focus is lost."""

    def __init__(self, name: str, page: "_Page") -> None:
        self.name = name
        with ui.card().classes("min-w-[20rem] gap-1").props(f'role="region" aria-label="{name}"'):
            with ui.row().classes("w-full items-center"):
                ui.label(name).classes("text-xl font-medium").props('role="heading" aria-level=2')
                ui.space()
                with ui.row(wrap=False).classes("items-center gap-1") as self.standing:
                    self.icon = ui.icon("help").props("aria-hidden=true")
                    self.word = ui.label().classes("font-medium")
            with ui.row().classes("w-full gap-6"):
                names = (_("waiting"), _("retrying"), _("refused"), _("delivered today"))
                self.figures = [_figure(one) for one in names]
            self.why = ui.label().classes("text-sm whitespace-pre-line min-h-[2.5rem]")
            with ui.row().classes("w-full gap-2"):
                self.retry = ui.button(_("Retry all refused"), on_click=lambda: page.retry_all(name)).props("dense no-caps")
                self.resume = ui.button(_("Resume"), icon="play_arrow", on_click=lambda: page.do("resume", destination=name))
                self.pause = ui.button(_("Pause"), icon="pause", on_click=lambda: page.pause(name)).props("outline")
        for button in (self.resume, self.pause):
            button.props("dense no-caps")

    def show(self, stands: dict[str, Any], found: Picture) -> None:
        """Takes what the daemon says of it, and what the store has."""
        none = (0, 0)
        waiting, refused = (found.counts.get((self.name, state), none)[0] for state in ("queued", "refused"))
        values = (waiting, stands.get("retrying", 0), refused, found.today.get(self.name, 0))
        for label, value in zip(self.figures, values, strict=True):
            label.set_text(number_text(value))
        icon, colour, word = _standing(stands)
        self.icon.set_name(icon)
        self.word.set_text(word)
        self.standing.classes(replace=f"items-center gap-1 {colour}")
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
                changed = _("The list has changed: show it")
                self.news = ui.button(changed, icon="refresh", on_click=self._list).props("flat dense no-caps")
            self.list = ui.column().classes("w-full gap-2")
        await self._turn()
        watch().on_change("status", self._status)
        watch().on_change("queue", self._changed)
        ui.context.client.on_connect(self._changed)  # what changed before the browser was there

    async def _read(self, fresh: bool = False) -> None:
        which = self.destination, self.state, self.offset
        self.picture = await asyncio.to_thread(picture, watch().reader, _figures[0], *which, fresh)
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

    async def pause(self, name: str) -> None:
        """Asks why, then pauses a destination."""
        reason = await ask_reason(_("Pause {destination}", destination=name))
        if reason:
            await self.do("pause", destination=name, reason=reason)

    async def retry_all(self, name: str) -> None:
        """Asks, since there may be many, then retries what a destination refused."""
        count = self.picture.counts.get((name, "refused"), (0, 0))[0]
        with ui.dialog() as dialog, ui.card():
            ui.label(_("Send {count} refused deliveries to {destination} again?", count=number_text(count), destination=name))
            with ui.row().classes("w-full justify-end"):
                ui.button(_("Cancel"), on_click=lambda: dialog.submit(False)).props("flat no-caps")
                ui.button(_("Retry all refused"), on_click=lambda: dialog.submit(True)).props("no-caps autofocus")
        if await dialog:
            await self.do("retry", everything=True, destination=name)
        dialog.delete()

    async def do(self, command: str, **fields: Any) -> None:
        """Sends a command, then shows what became of the list."""
        await act(command, **fields)
        await self._turn(offset=self.offset)

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
            with ui.row().classes("w-full items-center"):
                self._pages()
            with ui.element("div").classes("w-full overflow-x-auto"), ui.element("table").classes("w-full text-left lb-queue"):
                heads = [_("delivery"), _("specimen"), _("since"), _("behind it"), _("the hospital's last words"), _("actions")]
                with ui.element("thead"), ui.element("tr"):
                    for head in heads:
                        with ui.element("th").classes("p-2").props("scope=col"):
                            ui.label(head)
                with ui.element("tbody"):
                    for line in self.drawn.lines:
                        self._row(line)

    def _pages(self) -> None:
        """Where the list stands, and the way to what comes before and after."""
        shown = len(self.drawn.lines)
        if not self.offset and shown < PAGE:
            return
        ui.label(_("{first} to {last}", first=number_text(self.offset + 1), last=number_text(self.offset + shown)))
        for icon, name, step in (("chevron_left", _("Earlier page"), -PAGE), ("chevron_right", _("Later page"), PAGE)):
            button = ui.button(icon=icon, on_click=lambda step=step: self._turn(offset=self.offset + step))
            button.props(f'flat dense round aria-label="{name}"')
            button.set_enabled(self.offset > 0 if step < 0 else shown == PAGE)

    def _row(self, line: Line) -> None:
        one, last = line.delivery, line.last
        with ui.element("tr").classes("border-t").props(f"data-delivery={one.id}"):
            cells = [ui.element("td").classes("p-2 align-top") for _number in range(6)]
        with cells[0]:
            ui.label(str(one.id))
        with cells[1]:
            if one.specimen and can("see specimen"):
                ui.link(brief(one.specimen, 40), address(one.specimen)).classes("font-mono")
            else:
                ui.label(brief(one.specimen, 40) if can("see specimen") else "").classes("font-mono")
        with cells[2]:
            ui.label(time_text(one.at))
        with cells[3]:
            ui.label(number_text(line.behind) if line.behind else "")
        with cells[4]:
            ui.label(_said(last)).classes("break-words max-w-[36rem]")
        with cells[5], ui.row(wrap=False).classes("gap-1"):
            self._buttons(one)

    def _buttons(self, one: Queued) -> None:
        """What can be done with one delivery."""
        number: dict[str, Any] = {"deliveries": [one.id]}

        async def with_reason(command: str, title: str) -> None:
            if reason := await ask_reason(title):
                await self.do(command, reason=reason, **number)

        if one.state == "refused" and can("retry"):
            again = ui.button(_("Retry"), on_click=lambda: self.do("retry", **number)).props("dense no-caps")
            again.tooltip(_("The same message again"))
        if one.state in ("delivered", "cancelled") and can("send-again"):
            title = _("Send delivery {id} again", id=one.id)
            anew = ui.button(_("Send again"), on_click=lambda: with_reason("send-again", title)).props("dense no-caps outline")
            anew.tooltip(_("A new message with a number of its own"))
        if one.state in ("queued", "refused") and can("cancel"):
            called = _("Cancel delivery {id}", id=one.id)
            ui.button(_("Cancel"), on_click=lambda: with_reason("cancel", called)).props("dense no-caps flat")


def _figure(name: str) -> ui.label:
    with ui.column().classes("gap-0 items-center"):
        value = ui.label().classes("text-3xl font-medium")
        ui.label(name).classes("text-sm")
    return value


def _standing(stands: dict[str, Any]) -> tuple[str, str, str]:
    """Icon, colour and word for how a destination stands."""
    if not stands:
        return "help", "lb-bad", _("unknown")
    if stands["paused"]:
        return "pause_circle", "lb-warn", _("paused")
    if not stands["connections"]:
        return "error", "lb-bad", _("not connected")
    return "check_circle", "lb-good", _("connected")


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


def _said(last: Attempt | None) -> str:
    """The last answer: its code, and the hospital's words to who may know of patients."""
    if last is None:
        return ""
    words = words_of(last) if can("see specimen") else ""
    return " — ".join(filter(None, (brief(last.outcome.partition(" ")[2], 20), words)))
