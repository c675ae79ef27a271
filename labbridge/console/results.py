"""The panel of one specimen's results: what stands beside the list of Pending, and on the page of a specimen."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from nicegui import background_tasks, run, ui

from labbridge import profiles, revision
from labbridge.console import deeds
from labbridge.console.acting import act
from labbridge.console.sheet import Line, Note, Run, Sheet, sheet_of
from labbridge.console.texts import _, language, reason_text, time_text
from labbridge.console.watch import watch
from labbridge.model import Patient
from labbridge.profiles import Alarm, ProfileError
from labbridge.showing import brief
from labbridge.verification.ages import age_in_days

EARLIER = 30  # reports of the same patient that are looked at

_ROW = r"""
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
    def chosen(self) -> list[Line]:
        """The tests that are ticked; all that are held where none is."""
        assert self.sheet is not None
        ticked = {row["id"] for row in self._table.selected} if self._table is not None else set()
        return [line for line in self.sheet.lines if line.test in ticked] or list(self.sheet.held)

    @property
    def ready(self) -> bool:
        """Whether there is anything to act on."""
        return self.sheet is not None and bool(self.sheet.heads)

    @property
    def idle(self) -> bool:
        """Whether it may be drawn anew: nobody is choosing or deciding."""
        return not self.acting and not (self._table is not None and self._table.selected)

    @property
    def target(self) -> dict[str, Any]:
        """What a command takes to mean this specimen."""
        return {"specimen": self.specimen, **({"reports": [self.report]} if self.report else {})}

    async def load(self) -> None:
        """Reads and draws what is stored now."""
        self.sheet = await run.io_bound(_read, self.specimen, self.report)
        self._draw.refresh()

    @ui.refreshable_method
    def _draw(self) -> None:
        sheet = self.sheet
        if sheet is None:
            return
        if not sheet.heads:
            ui.label(_("Nothing is known of specimen {specimen}.", specimen=brief(self.specimen))).classes("text-lg p-4")
            return
        _head(sheet, self.specimen if self.named else None)
        deeds.buttons(self)
        columns = [
            {"name": name, "label": label, "field": "id", "align": "left"}
            for name, label in (
                ("test", _("Test")),
                ("value", _("Value")),
                ("reference", _("Reference")),
                ("before", _("Before")),
                ("why", _("State and why")),
            )
        ]
        rows = [_cells(line) for line in sheet.lines]
        self._table = ui.table(columns=columns, rows=rows, row_key="id", selection="multiple", pagination=0)
        self._table.classes("w-full lb-results").props("dense flat hide-pagination wrap-cells").add_slot("body", _ROW)
        label = escape(_("All tests"), quote=True)
        self._table.add_slot("header-selection", f'<q-checkbox v-model="props.selected" dense aria-label="{label}" />')
        every = _("All tests")
        self._table.add_slot("header-selection", f'<q-checkbox v-model="props.selected" dense aria-label="{every}" />')
        for note in reversed(sheet.notes):
            ui.label(_note(note)).classes("text-sm lb-wrap")


async def results_panel(specimen: str, report: int = 0, *, named: bool = True) -> Panel:
    """Draws a specimen's results here, with what may be done with them; that it was looked at is audited."""
    panel = Panel(specimen, report, named=named)
    panel._draw()
    await panel.load()
    if panel.sheet is not None and panel.sheet.heads:
        watch().enter(specimen)
        background_tasks.create(act("viewed", quiet=True, **panel.target), name="viewed", context=ui.context.client)
    return panel


def _read(specimen: str, report: int) -> Sheet:
    reader = watch().reader
    reports = reader.reports([report]) if report else reader.reports_of(specimen)
    patient = next((row.patient for row in reversed(reports) if row.patient), "")
    before = reader.reports_of_patient(patient, reports[0].report_id, EARLIER) if patient else []
    return sheet_of(specimen, reports, before, watch().catalogue(), alarm_of)


def alarm_of(analyzer: str, code: str) -> Alarm | None:
    """What an analyzer's alarm means, by its profile."""
    settings = watch().settings
    name = next((one.profile for one in settings.analyzers if one.name == analyzer), "")
    return _alarms(name, tuple(revision.folders(settings, "analyzers")), watch().revision).get(code)


@lru_cache(maxsize=64)
def _alarms(profile: str, folders: Sequence[Path], _revision: str) -> Mapping[str, Alarm]:
    try:
        return profiles.load(profile, folders).alarms
    except (ProfileError, OSError):
        return {}


# -- in words ------------------------------------------------------------------------------------------------------


def flag_word(flag: str) -> str:
    """A flag of the laboratory's limits in words, with a sign."""
    words = {"HH": _("⇈ critically high"), "LL": _("⇊ critically low"), "H": _("↑ high"), "L": _("↓ low"), "A": _("abnormal")}
    return words.get(flag, "")


def state_word(action: str) -> str:
    """What became of a result or a report."""
    words = {"rejected": _("rejected"), "superseded": _("superseded"), "kept": _("kept")}
    words |= dict.fromkeys(("hold", "held"), _("held")) | dict.fromkeys(("release", "released"), _("released"))
    return words.get(action, action)


def patient_text(patient: Patient, at: int) -> str:
    """Name, sex, age and ward, as far as they were sent."""
    zone = ZoneInfo(watch().settings.site.timezone)
    days = age_in_days(patient, at / 1e6, zone)
    name = brief(" ".join(filter(None, (patient.family, patient.given))), 60)
    return " · ".join(filter(None, (name, who_text(days, patient.sex), brief(patient.id, 40), brief(patient.location, 40))))


def who_text(days: int | None, sex: str) -> str:
    """Age and sex."""
    sexes = {"M": _("male"), "F": _("female")}
    age = "" if days is None else _("{n} years", n=days * 100 // 36525) if days >= 730 else _("{n} days", n=days)
    if days is not None and 90 <= days < 730:
        age = _("{n} months", n=days * 100 // 3044)
    return " ".join(filter(None, (sexes.get(sex, ""), age)))


def _head(sheet: Sheet, specimen: str | None) -> None:
    newest = sheet.heads[0]
    with ui.row().classes("w-full items-baseline gap-3"):
        if specimen is not None:
            ui.label(brief(newest.specimen.id or specimen, 60) or _("no specimen id")).classes("text-2xl font-medium lb-wrap")
        ui.label(patient_text(sheet.patient, newest.at)).classes("text-base lb-wrap")
    if sheet.several:
        ui.label(_("⚠ Its reports name more than one patient.")).classes("font-bold lb-bad")
    for head in sheet.heads[:6]:
        place = _("rack {rack} place {place}", rack=brief(head.specimen.rack, 20), place=brief(head.specimen.position, 20))
        told = (head.analyzer, time_text(head.at), place if head.specimen.rack else "", state_word(head.state))
        said = " · ".join(filter(None, (*told, brief(reason_text(head.problems), 400), *(brief(one) for one in head.comments[:3]))))
        ui.label(said).classes("text-sm opacity-80 lb-wrap")


def _cells(line: Line) -> dict[str, Any]:
    now, about = line.now, line.about
    last = line.earlier[-1] if line.earlier else None
    name = (about.name_zh if language() == "zh" and about.name_zh else about.name) if about else _("not mapped")
    told = _("called back") if now.critical and now.told else ""
    why = list(dict.fromkeys(brief(reason_text([reason]), 300) for reason in now.decided.verdict.reasons))
    return {
        "id": line.test,
        "test": brief(about.short or line.test if about else line.test, 60),
        "name": brief(name, 80),
        "value": brief(now.value, 120),
        "unit": brief(now.decided.print_unit or now.result.unit, 30),
        "flag": flag_word(now.decided.flag) or (_("critical") if now.critical else ""),
        "critical": now.critical,
        "held": now.held,
        "reference": brief(now.decided.reference, 60),
        "before": f"{brief(last.value, 40)} · {time_text(last.at * 1_000_000)}" if last else "",
        "change": line.change,
        "trend": line.trend,
        "runs": [_run(one) for one in line.runs] if len(line.runs) > 1 or now.result.dilution or now.result.run else [],
        "state": " · ".join(filter(None, (state_word(now.decided.verdict.action), told))),
        "why": why if now.held else [],
        "says": _says(now),
    }


def _run(one: Run) -> str:
    """A run beside the others: value, dilution, run, where and when, what became of it."""
    dilution = _("dilution {dilution}", dilution=brief(one.result.dilution, 20)) if one.result.dilution else ""
    number = _("run {run}", run=brief(one.result.run, 20)) if one.result.run else ""
    parts = (brief(one.value, 40), dilution, number, one.analyzer, time_text(one.at), state_word(one.decided.verdict.action))
    return " · ".join(filter(None, parts))


def _says(one: Run) -> list[str]:
    """What the analyzer says of a result: flags, alarms in words with what to do, marks of its operator."""
    found = []
    if one.result.flags:
        found.append(_("analyzer's flags: {flags}", flags=brief(", ".join(one.result.flags), 100)))
    for code, alarm in one.alarms:
        words = (alarm.zh if language() == "zh" and alarm.zh else alarm.en) if alarm else ""
        do = _("hold") if alarm is None or alarm.hold else _("may be released")
        found.append(_("alarm {code}: {words} ({do})", code=brief(code, 60), words=brief(words, 200) or _("unknown alarm"), do=do))
    if one.result.edited:
        found.append(_("edited at the analyzer"))
    return found + [brief(comment) for comment in one.result.comments[:3]]


def _note(note: Note) -> str:
    """What a person did, in one line."""
    one = note.decision
    told = _("told {who} at {when}", who=brief(one.told, 80), when=time_text((one.told_at or 0) * 1_000_000)) if one.told else ""
    back = (_("read back") if one.read_back else _("not read back")) if one.told else ""
    tests = ", ".join(one.tests or dict.fromkeys(result.test or result.code for result in one.results))
    return " · ".join(filter(None, (one.actor, deeds.word(one.kind), brief(tests, 100), told, back, brief(one.comment, 300))))
