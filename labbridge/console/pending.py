"""Pending: what is held, waits or was refused, the most urgent first; beside it the results of the specimen that is open."""

import asyncio
from typing import Any

from nicegui import run, ui

from labbridge.console import deeds, groups, session
from labbridge.console.acting import act, ask_reason
from labbridge.console.frame import page
from labbridge.console.keys import on_keys
from labbridge.console.proposals import Proposals, shifted
from labbridge.console.results import Panel, results_panel
from labbridge.console.watch import watch
from labbridge.model import Reason, decode
from labbridge.showing import brief
from labbridge.views import listing
from labbridge.views.rows import Group
from labbridge.views.screen import PAGE, Screen
from labbridge.views.texts import _, number_text, reason_text, time_text

ROW = r"""
<q-tr :props="props" :tabindex="props.row.here ? 0 : -1" :aria-selected="props.row.here"
  class="cursor-pointer" :class="{'lb-here-row': props.row.here, 'lb-gone': props.row.gone}"
  @click="() => $parent.$emit('choose', props.row.key)"
  @keydown.enter="() => $parent.$emit('choose', props.row.key)">
  <q-td v-for="col in props.cols" :key="col.name" :props="props" class="align-top lb-wrap">
    <template v-if="col.name === 'specimen'">
      <div class="font-medium text-base truncate max-w-[9rem]" :title="props.row.specimen">{{ props.row.specimen }}</div>
      <div v-if="props.row.critical" class="font-bold lb-bad"><q-icon name="report" /> {{ props.row.critical }}</div>
      <div v-if="props.row.gone" class="text-xs font-bold">{{ props.row.gone }}</div>
      <div v-if="props.row.others" class="text-xs"><q-icon name="visibility" /> {{ props.row.others }}</div>
    </template>
    <template v-else-if="col.name === 'why'">
      <div v-for="line in props.row.why" class="text-sm">{{ line }}</div>
    </template>
    <template v-else>
      <div v-for="line in props.row[col.name]" class="text-xs truncate max-w-[8rem]" :title="line">{{ line }}</div>
    </template>
  </q-td>
</q-tr>"""

TICK_S = 2.0  # ages, and who has what open
# What stands in the field at Enter, whatever has come of it yet; the field is empty then.
_TAKE = "(e) => { emit(e.target.value); e.target.value = ''; e.target.dispatchEvent(new Event('input')); }"


@page("/pending", "Pending", "see pending")
async def pending(specimen: str = "") -> None:
    """The list and the panel; ``?specimen=`` opens one at once."""
    await Pending().build(specimen)


class Pending:
    """What one person sees: the list, and the specimen that is open."""

    def __init__(self) -> None:
        self.screen = Screen(watch().held)
        self.panel: Panel | None = None
        self.opening = asyncio.Lock()

    async def build(self, specimen: str) -> None:
        """Draws the page."""
        Proposals()
        self._bar()
        with ui.row().classes("w-full no-wrap items-start gap-3 lb-pending"):
            with ui.column().classes("gap-1 lb-list"):
                self.heading()
                self.table = ui.table(columns=listing.heading(), rows=[], row_key="key", pagination=0)
                self.table.props("dense flat hide-pagination wrap-cells").classes("w-full").add_slot("body", ROW)
                self.table.on("choose", lambda event: self._chosen(str(event.args)))
            self.side = ui.column().classes("gap-2 lb-side").props(f'role=region aria-label="{_("Results of the specimen")}"')
        with self.side:
            ui.label(_("Scan a barcode, or choose a row.")).classes("text-lg opacity-70 p-6")
        self._draw()
        on_keys(self._pressed)
        watch().on_change("held", self._changed)
        ui.timer(TICK_S, self._draw)
        if specimen:
            await self.open(specimen)

    def _bar(self) -> None:
        choices = watch().held.choices()
        selects: dict[str, tuple[str, dict[str, str]]] = {
            "what": (_("What"), listing.what_choices()),
            "analyzer": (_("Analyzer"), {name: name for name in choices.analyzers}),
            "reason": (_("Reason"), listing.reason_choices(choices.reasons)),
            "test": (_("Test"), {test: brief(test) for test in choices.tests}),
        }
        with ui.row().classes("w-full items-center gap-2"):
            self.scan = ui.input(placeholder=_("Scan or type a barcode")).props("outlined dense autofocus clearable")
            self.scan.props(f'aria-label="{_("Barcode")}"').classes("lb-scan w-64 text-lg")
            self.scan.on("keydown.enter", lambda event: self._scanned(str(event.args)), js_handler=_TAKE)
            for name, (label, options) in selects.items():
                box = ui.select(options, label=label, with_input=len(options) > 12, clearable=True).props("outlined dense")
                box.classes("w-36").on_value_change(lambda event, name=name: self._filter(name, event.value))
            text = ui.input(_("Text")).props("outlined dense clearable debounce=300").classes("w-28")
            text.on_value_change(lambda event: self._filter("text", event.value))
            ui.switch(_("By cause"), on_change=lambda event: self._group(bool(event.value)))
            if session.can("correct-id"):
                ui.button(_("Shifted batch"), icon="low_priority", on_click=shifted).props("flat dense no-caps")

    @ui.refreshable_method
    def heading(self) -> None:
        """How many there are, what is new, and which of them are on the screen."""
        screen, every = self.screen, len(self.screen.lines)
        with ui.row().classes("w-full items-center gap-2 min-h-8"):
            ui.label(_("{n} pending", n=number_text(len(screen.rows)))).classes("text-lg font-medium").props("role=status")
            if news := screen.news():
                new = ui.button(_("{n} new", n=number_text(news)), icon="refresh", on_click=self.renew)
                new.props("no-caps dense color=primary").classes("lb-new")
            if screen.filter.cause:
                groups.opened(list(screen.rows.values()), lambda: self._filter("cause", ""))
            if every > PAGE:
                ui.space()
                ui.label(f"{number_text(screen.first + 1)}–{number_text(min(screen.first + PAGE, every))}")
                for icon, label, step in (("chevron_left", _("Previous"), -1), ("chevron_right", _("Next"), 1)):
                    turn = ui.button(icon=icon, on_click=lambda step=step: self._turn(step)).props("flat dense round")
                    turn.props(f'aria-label="{label}"')

    def renew(self) -> None:
        """Takes what is new into the list."""
        self.screen.choose()
        self._changed()
        self.scan.run_method("focus")

    def _filter(self, name: str, value: Any) -> None:
        setattr(self.screen.filter, name, value or "")
        self.renew()

    def _group(self, grouped: bool) -> None:
        self.screen.grouped = grouped
        self._filter("cause", "")

    def _turn(self, pages: int) -> None:
        self.screen.turn(pages)
        self._changed()

    def _changed(self) -> None:
        """What is on the screen stays where it is: only what became of it is shown, and how much is new."""
        if not self.screen.rows:
            self.screen.choose()  # nothing is on the screen that could move
        self.heading.refresh()
        self._draw()

    def _draw(self) -> None:
        drawn = self.screen.drawn(watch().present, session.user().account)
        if drawn != self.table.rows:
            self.table.rows = drawn

    async def _chosen(self, key: str) -> None:
        for place, row in enumerate(self.table.rows):
            if row["key"] == key:
                self.screen.cursor = place
                await self._scanned("")
                return

    async def _scanned(self, code: str) -> None:
        """A specimen's id; where there is none, the line that the cursor is on."""
        line = self.screen.line()
        if code.strip():
            await self.open(code.strip())
        elif isinstance(line, Group):
            self._filter("cause", line.cause.key)
        elif line:
            await self.open(line.opens, 0 if line.opens else line.id)

    async def _pressed(self, key: str) -> None:
        if key in ("ArrowUp", "ArrowDown"):
            self.screen.move(1 if key == "ArrowDown" else -1)
            self._draw()
        elif key in ("PageUp", "PageDown"):
            self._turn(1 if key == "PageDown" else -1)
        else:
            await deeds.press(self.panel, key)

    async def open(self, specimen: str, report: int = 0) -> None:
        """Opens a specimen, or a message (``#number``), beside the list; where it has no id, its one report."""
        async with self.opening:
            if self.panel is not None and self.panel.ready:
                watch().leave(self.panel.specimen)
            self.panel = None
            self.side.clear()
            with self.side:
                if specimen.startswith("#") and specimen[1:].isdecimal():
                    await self._message(specimen)
                else:
                    self.panel = await results_panel(specimen, report)
        self._draw()
        self.scan.run_method("focus")

    async def _message(self, number: str) -> None:
        """A message that could not be read, or broke off."""
        message = await run.io_bound(watch().reader.message, int(number[1:]))
        if message is None:
            ui.label(_("There is no message {number}.", number=number)).classes("text-lg p-4")
            return
        ui.label(_("Message {number}", number=number)).classes("text-2xl font-medium")
        why = brief(reason_text(decode(message.note.encode() or b"[]", list[Reason])), 600)
        for text in (f"{message.analyzer} · {time_text(message.at)} · {message.kind} · {message.size} B", why):
            ui.label(text).classes("lb-wrap")
        ui.link(_("Its bytes"), f"/specimen/%23{number[1:]}")
        if message.state == "open" and session.can("reject"):
            ui.button(_("Settle"), icon="check", on_click=lambda: self._settle(number)).props("no-caps dense unelevated")

    async def _settle(self, number: str) -> None:
        reason = await ask_reason(_("Settle"))
        if reason and (await act("reject", specimen=number, reason=reason)).ok:
            await self.open(number)
