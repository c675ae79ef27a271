"""The paper for when the hospital's system is down: what was released of one specimen, in both languages, on A4."""

import asyncio
import time

from nicegui import ui

from labbridge.console.acting import act
from labbridge.console.frame import page
from labbridge.console.session import user
from labbridge.console.tables import plain_table
from labbridge.console.watch import watch
from labbridge.model import Patient
from labbridge.showing import brief
from labbridge.views.paper import Paper, paper, stamp_text
from labbridge.views.texts import in_both as _
from labbridge.views.texts import paper_time


@page("/specimen/{specimen:path}/print", "Report", "see specimen")
async def printed(specimen: str) -> None:
    """The page that is printed."""
    trace = await asyncio.to_thread(watch().reader.trace, specimen)
    if not trace.reports:
        ui.label(_("Nothing is known of specimen {specimen}.", specimen=brief(specimen))).classes("text-2xl").props('role="alert"')
        return
    ui.button(_("Print"), icon="print", on_click=lambda: ui.run_javascript("window.print()")).props("no-caps").classes("lb-noprint")
    with ui.element("article").classes("lb-paper"):
        _draw(specimen, await asyncio.to_thread(paper, trace, watch().catalogue()))
    await act("viewed", specimen=specimen, quiet=True)


def _draw(specimen: str, found: Paper) -> None:
    ui.label(watch().settings.site.name).classes("text-xl font-bold")
    ui.label(_("Laboratory report")).classes("text-lg").props('role="heading" aria-level=1')
    ui.label(brief(specimen, 80)).classes("text-2xl font-mono font-bold")
    for patient in found.patients:
        _patient(patient)
    if len(found.patients) > 1:
        ui.label(_("⚠ Its reports name more than one patient.")).classes("lb-out")
    _pairs((_("Specimen"), found.specimen.type), (_("Collected"), stamp_text(found.specimen.collected)))
    heads = (_("Test"), _("Result"), _("Unit"), _("Flag"), _("Reference"), _("Measured"), _("Released by"))
    for line, drawn in zip(found.lines, plain_table(heads, found.lines), strict=True):
        drawn.classes("lb-out" if line.flag else "")
    if not found.lines:
        ui.label(_("No result of it is released."))
    if found.waiting:
        tests = ", ".join(brief(name, 80) for name in found.waiting[:50])
        ui.label(f"{_('Not verified yet, therefore not printed')}: {tests}").classes("lb-out")
    ui.label(f"{_('Printed')}: {paper_time(int(time.time() * 1e6))}  {brief(user().account)}").classes("text-sm mt-4")


def _patient(patient: Patient) -> None:
    name = " ".join(filter(None, (patient.family, patient.given)))
    sex = {"M": _("male"), "F": _("female")}.get(patient.sex, "")
    who = (_("Patient"), name), (_("Id"), patient.id), (_("Sex"), sex), (_("Born"), stamp_text(patient.birth))
    _pairs(*who, (_("Age"), patient.age), (_("Ward"), patient.location))


def _pairs(*named: tuple[str, str]) -> None:
    """What there is, each with its name, in one line."""
    ui.label("    ".join(f"{name}: {brief(text, 60)}" for name, text in named if text)).classes("whitespace-pre-wrap")
