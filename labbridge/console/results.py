"""The panel of one specimen's results: what stands beside the list of Pending, and on the page of a specimen."""

from collections.abc import Sequence
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from nicegui import background_tasks, run, ui

from labbridge.console import deeds
from labbridge.console.acting import act
from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.views import wording
from labbridge.views.sheet import Line, Sheet, read_sheet
from labbridge.views.texts import _

ROW = r"""
<q-tr :props="props" :class="props.row.held ? '' : 'opacity-80'">
  <q-td auto-width><q-checkbox v-model="props.selected" dense :aria-label="props.row.test" /></q-td>
  <q-td class="align-top"><div class="font-medium">{{ props.row.test }}</div>
    <div class="text-xs opacity-70 lb-wrap">{{ props.row.name }}</div></q-td>
  <q-td class="align-top">
    <div :class="props.row.critical ? 'font-bold text-lg lb-bad' : 'text-base'">
      <q-icon v-if="props.row.critical" name="report" />
      {{ props.row.value }} <span class="text-xs">{{ props.row.unit }}</span></div>
    <div class="text-xs" :class="props.row.critical ? 'font-bold' : ''">{{ props.row.flag }}</div>
    <div v-for="run in props.row.runs" class="text-xs opacity-80 lb-wrap">{{ run }}</div></q-td>
  <q-td class="align-top text-sm">{{ props.row.reference }}</q-td>
  <q-td class="align-top text-sm"><div>{{ props.row.before }}</div><div>{{ props.row.change }}</div>
    <div class="tracking-tighter" aria-hidden="true">{{ props.row.trend }}</div></q-td>
  <q-td class="align-top text-sm lb-wrap"><div class="font-medium">{{ props.row.state }}</div>
    <div v-for="why in props.row.why">{{ why }}</div>
    <div v-for="told in props.row.says" class="opacity-80">{{ told }}</div></q-td>
</q-tr>"""


class Panel:
    """One specimen that is open on a page: what is shown of it, and the tests that are chosen."""

    def __init__(self, specimen: str, report: int = 0, *, named: bool = True) -> None:
        self.specimen = specimen
        self.named = named  # whether the specimen's id stands above it
        self.report = report  # where the specimen has no id: the one report meant
        self.sheet: Sheet | None = None
        self.acting = False  # a dialog is open
        self._table: ui.table | None = None

    @property
    def lines(self) -> Sequence[Line]:
        """The tests that are shown."""
        return self.sheet.lines if self.sheet else ()

    @property
    def held(self) -> Sequence[Line]:
        """Of them, those that wait for a person."""
        return self.sheet.held if self.sheet else ()

    @property
    def chosen(self) -> Sequence[Line]:
        """The tests that are ticked; all that are held where none is."""
        ticked = {row["id"] for row in self._table.selected} if self._table else set()
        return [line for line in self.lines if line.test in ticked] or self.held

    @property
    def ready(self) -> bool:
        """Whether there is anything to act on."""
        return self.sheet is not None and bool(self.sheet.heads)

    @property
    def idle(self) -> bool:
        """Whether it may be drawn anew: nobody is choosing or deciding."""
        return not self.acting and not (self._table and self._table.selected)

    @property
    def target(self) -> dict[str, Any]:
        """What a command takes to mean this specimen."""
        return {"specimen": self.specimen, **({"reports": [self.report]} if self.report else {})}

    async def load(self) -> None:
        """Reads and draws what is stored now."""
        now = watch()
        self.sheet = await run.io_bound(
            read_sheet, now.reader, now.settings, now.catalogue(), now.revision, self.specimen, self.report
        )
        self.draw.refresh()

    @ui.refreshable_method
    def draw(self) -> None:
        """What was read, and what may be done with it."""
        if self.sheet is None:
            return
        if not self.sheet.heads:
            ui.label(_("Nothing is known of specimen {specimen}.", specimen=brief(self.specimen))).classes("text-lg p-4")
            return
        self._head(self.sheet)
        deeds.buttons(self)
        rows = list(map(wording.cells, self.sheet.lines))
        self._table = ui.table(columns=wording.heading(), rows=rows, row_key="id", selection="multiple", pagination=0)
        self._table.classes("w-full lb-results").props("dense flat hide-pagination wrap-cells").add_slot("body", ROW)
        every = escape(_("All tests"), quote=True)
        self._table.add_slot("header-selection", f'<q-checkbox v-model="props.selected" dense aria-label="{every}" />')
        for note in reversed(self.sheet.notes):
            ui.label(wording.note_text(note)).classes("text-sm lb-wrap")

    def _head(self, sheet: Sheet) -> None:
        with ui.row().classes("w-full items-baseline gap-3"):
            if self.named:
                name = brief(sheet.heads[0].specimen.id or self.specimen, 60) or _("no specimen id")
                ui.label(name).classes("text-2xl font-medium lb-wrap")
            ui.label(wording.patient_text(sheet, ZoneInfo(watch().settings.site.timezone))).classes("text-base lb-wrap")
        if sheet.several:
            ui.label(_("⚠ Its reports name more than one patient.")).classes("font-bold lb-bad")
        for head in sheet.heads[:6]:
            ui.label(wording.head_text(head)).classes("text-sm opacity-80 lb-wrap")


async def results_panel(specimen: str, report: int = 0, *, named: bool = True) -> Panel:
    """Draws a specimen's results here, with what may be done with them; that it was looked at is audited."""
    panel = Panel(specimen, report, named=named)
    panel.draw()
    await panel.load()
    if panel.ready:
        watch().enter(specimen)
        background_tasks.create(act("viewed", quiet=True, **panel.target), name="viewed", context=ui.context.client)
    return panel
