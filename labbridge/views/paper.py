"""What is printed of a specimen: what stands released, in both languages, and the names of what waits."""

import re
from typing import NamedTuple

import msgspec

from labbridge import model
from labbridge.mapping import Catalogue
from labbridge.model import Patient, Report, Specimen
from labbridge.showing import brief
from labbridge.store.erasure import erased
from labbridge.store.rows import Trace
from labbridge.views.texts import in_both as _
from labbridge.views.texts import paper_time

_SIGNS = {"LL": "⇊ LL", "L": "↓ L", "H": "↑ H", "HH": "⇈ HH", "A": "* A", "N": ""}
_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d).*)?", re.ASCII)


class Printed(NamedTuple):
    """One line of the table."""

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
                continue
            released.pop(name, None)  # the newest stands last
            if one.verdict.action == "release" and one.status not in ("X", "W"):
                released[name] = _line(name, one, actor, at)
    return Paper(tuple(patients), specimen, tuple(released.values()), tuple(waiting))


def stamp_text(stamp: str) -> str:
    """A date, or a date and time, as HL7 writes it, for people; any other text as it is."""
    found = _STAMP.fullmatch(stamp)
    return stamp if not found else "-".join(found.groups()[:3]) + (f" {found[4]}:{found[5]}" if found[4] else "")


def _line(name: str, one: model.Decided, actor: str, at: int) -> Printed:
    flag = _SIGNS.get(one.flag, one.flag)
    measured = paper_time(one.measured_at * 1_000_000) if one.measured_at else ""
    who = _("automatic") if actor == "rules" else brief(actor, 40)
    told = brief(name, 80), brief(one.value, 120), brief(one.print_unit or one.unit, 30), flag, brief(one.reference, 60)
    return Printed(*told, measured, f"{who} {paper_time(at)}")


def _name(test: str, catalogue: Catalogue) -> str:
    """A test's code, and its names in both languages."""
    about = catalogue.tests.get(test)
    return " ".join(dict.fromkeys(filter(None, (test, about.name, about.name_zh)))) if about else test
