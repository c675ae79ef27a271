"""The paper for when the hospital's system is down: what was released of one specimen, in both languages, on A4.

Only what is released has its value here: what still waits for a person is named, and no more.
"""

import asyncio
import time
from collections.abc import Sequence

import msgspec
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from labbridge import model
from labbridge.console.acting import act
from labbridge.console.frame import page
from labbridge.console.session import user
from labbridge.console.texts import in_both as _
from labbridge.console.texts import paper_time
from labbridge.console.watch import watch
from labbridge.mapping import Catalogue
from labbridge.model import Patient, Report, Specimen
from labbridge.showing import brief
from labbridge.store.erasure import erased
from labbridge.store.rows import Trace

_SHOWN = {"LL": "⇊", "L": "↓", "H": "↑", "HH": "⇈", "A": "*"}


class Printed(msgspec.Struct, frozen=True):
    """One line of the table, as texts."""

    test: str
    value: str
    unit: str
    flag: str
    reference: str
    measured: str
    released: str


class Paper(msgspec.Struct, frozen=True):
    """What is printed; ``waiting`` are the tests that nobody has released yet."""

    patients: tuple[Patient, ...]
    specimen: Specimen
    lines: tuple[Printed, ...]
    waiting: tuple[str, ...]


def paper(trace: Trace, catalogue: Catalogue) -> Paper:
    """What stands of a specimen; of a test that was released more than once, the newest."""
    released: dict[str, Printed] = {}
    waiting: dict[str, None] = {}
    patients: dict[Patient, None] = {}
    specimen = Specimen()
    for row in trace.reports:
        if erased(row.document) or row.state == "kept":
            continue
        report = model.decode(row.document, Report)
        specimen = report.specimen if report.specimen != Specimen() else specimen
        if report.patient != Patient():
            patients[report.patient] = None
        latest = {}
        for decided in (one for one in trace.decisions if one.report_id == row.report_id and not erased(one.document)):
            for one in model.decode(decided.document, model.Decision).results:
                latest[one.index] = one, decided.actor, decided.at
        for one, actor, at in latest.values():
            name = _name(one.test, catalogue) or one.code
            if one.verdict.action == "hold":
                waiting[name] = None
            elif one.verdict.action == "release" and one.status not in ("X", "W"):
                released.pop(name, None)
                released[name] = _line(name, one, actor, at)
            else:
                released.pop(name, None)
    return Paper(tuple(patients), specimen, tuple(released.values()), tuple(waiting))


def _line(name: str, one: model.Decided, actor: str, at: int) -> Printed:
    measured = paper_time(one.measured_at * 1_000_000) if one.measured_at else ""
    who = _("automatic") if actor == "rules" else brief(actor, 40)
    mark = f"{_SHOWN.get(one.flag, '')} {one.flag}".strip() if one.flag != "N" else ""
    unit = brief(one.print_unit or one.unit, 30)
    return Printed(
        brief(name, 80), brief(one.value, 120), unit, mark, brief(one.reference, 60), measured, f"{who} {paper_time(at)}"
    )


def _name(test: str, catalogue: Catalogue) -> str:
    """A test's names in both languages, and its code."""
    about = catalogue.tests.get(test)
    return " ".join(dict.fromkeys(filter(None, (test, about.name, about.name_zh)))) if about else test


@page("/specimen/{specimen:path}/print", "Report", "see specimen")
async def printed(specimen: str) -> None:
    """The page that is printed."""
    trace = await asyncio.to_thread(watch().reader.trace, specimen)
    if not trace.reports:
        ui.label(_("Nothing is known of specimen {specimen}.", specimen=brief(specimen))).classes("text-2xl").props('role="alert"')
        return
    ui.button(_("Print"), icon="print", on_click=lambda: ui.run_javascript("window.print()")).props("no-caps").classes("lb-noprint")
    _draw(specimen, await asyncio.to_thread(paper, trace, watch().catalogue()))
    await act("viewed", specimen=specimen, quiet=True)


def _draw(specimen: str, found: Paper) -> None:
    with ui.element("article").classes("lb-paper"):
        ui.label(watch().settings.site.name).classes("text-xl font-bold")
        ui.label(_("Laboratory report")).classes("text-lg").props('role="heading" aria-level=1')
        ui.label(brief(specimen, 80)).classes("text-2xl font-mono font-bold")
        for patient in found.patients:
            ui.label(_patient(patient)).classes("whitespace-pre-wrap")
        if len(found.patients) > 1:
            ui.label(_("⚠ Its reports name more than one patient.")).classes("lb-out")
        about = found.specimen
        ui.label(_pairs((_("Specimen"), about.type), (_("Collected"), about.collected))).classes("whitespace-pre-wrap")
        heads = (_("Test"), _("Result"), _("Unit"), _("Flag"), _("Reference"), _("Measured"), _("Released by"))
        _table(heads, [msgspec.structs.astuple(line) for line in found.lines])
        if not found.lines:
            ui.label(_("No result of it is released."))
        if found.waiting:
            tests = ", ".join(brief(name, 80) for name in found.waiting[:50])
            ui.label(f"{_('Not verified yet, therefore not printed')}: {tests}").classes("lb-out")
        ui.label(f"{_('Printed')}: {paper_time(int(time.time() * 1e6))}  {brief(user().account)}").classes("text-sm mt-4")


def _patient(patient: Patient) -> str:
    name = " ".join(filter(None, (patient.family, patient.given)))
    sex = {"M": _("male"), "F": _("female")}.get(patient.sex, "")
    who = (_("Patient"), name), (_("Id"), patient.id), (_("Sex"), sex)
    return _pairs(*who, (_("Born"), patient.birth), (_("Age"), patient.age), (_("Ward"), patient.location))


def _pairs(*named: tuple[str, str]) -> str:
    """What there is, each with its name, in one line."""
    return "    ".join(f"{name}: {brief(text, 60)}" for name, text in named if text)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with ui.element("table"):
        with ui.element("thead"), ui.element("tr"):
            for head in heads:
                TextElement(tag="th", text=head).props("scope=col")
        with ui.element("tbody"):
            for row in rows:
                line = ui.element("tr").classes("lb-out" if row[3] else "")
                with line:
                    for text in row:
                        TextElement(tag="td", text=text)
