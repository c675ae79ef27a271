"""A laboratory of a few tests, for the rooms between reading and delivery: its catalogue, its map, its revision."""

import re
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

from labbridge import mapping, profiles
from labbridge.formats import oru
from labbridge.mapping import Catalogue, CodeMap
from labbridge.model import Decided, Patient, Reason, Report, Result, Specimen
from labbridge.pipeline import AnalyzerRules, Moment, Outlet, Past, Revision
from labbridge.routing import Route
from labbridge.verification import Rules, Verifier

ANALYZERS = Path(__file__).parents[1] / "analyzers"
ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 21, 10, 15, tzinfo=ZONE).timestamp()
ADULT = Patient(id="P1", family="DOE", birth="19800101", sex="M")

FILES = {
    "tests.csv": """\
test,name,specimen,unit,print_unit,decimals,kind,release
K,Potassium,,mmol/L,,2,number,auto
GLU,Glucose,,mmol/L,,2,number,auto
NA,Sodium,,mmol/L,,0,number,auto
HGB,Hemoglobin,,g/L,,0,number,auto
WBC,Leukocytes,,10*9/L,,2,number,auto
TSH,Thyrotropin,,m[IU]/L,,3,number,auto
HIV,HIV screen,,,,,coded,auto
ABO,Blood group,,,,,coded,manual
""",
    "limits.csv": """\
test,kind,sex,age_from,age_to,low,high,text
K,reference,,,,3.5,5.3,
K,critical,,,,2.5,6.5,
K,absurd,,,,1,12,
HGB,reference,M,18y,,130,175,
HGB,reference,F,18y,,115,150,
HGB,reference,,,28d,145,225,
HGB,critical,,28d,,60,200,
HGB,critical,,,28d,95,223,
HIV,reference,,,,,,Negative
HIV,critical,,,,,,Positive
""",
    "panels.csv": "panel,name,test\nCHEM,Chemistry,K\nCHEM,,GLU\nCHEM,,NA\nCBC,Blood count,HGB\nCBC,,WBC\n",
    "lab.csv": """\
code,analyzer_unit,test,action
K,mmol/L,K,
GLU,mmol/L,GLU,
NA,mmol/L,NA,
HGB,g/L,HGB,
WBC,10*9/L,WBC,
TSH,m[IU]/L,TSH,
HIV,,HIV,
ABO,,ABO,
PNG,,,ignore
LOOK,,K,hold
""",
    "lab.values.csv": "code,value,means,kind\nHIV,POS,Positive,coded\nHIV,NEG,Negative,coded\nABO,A,A,coded\n",
}
UNITS = {"K": "mmol/L", "GLU": "mmol/L", "NA": "mmol/L", "HGB": "g/L", "WBC": "10*9/L", "TSH": "m[IU]/L", "XYZ": "mmol/L"}


@lru_cache(maxsize=8)
def tables(more: str = "") -> tuple[Catalogue, CodeMap]:
    """The catalogue and the code map; ``more`` are further lines of the map."""
    with TemporaryDirectory() as folder:
        for name, text in FILES.items():
            Path(folder, name).write_text(text + (more if name == "lab.csv" else ""), encoding="utf-8")
        catalogue = mapping.load_catalogue([Path(folder)])
        return catalogue, mapping.load_code_map("lab", [Path(folder)], catalogue)


def verifier(*, hold: Any = "result", auto_release: bool = True, harmless: tuple[str, ...] = (), **rules: Any) -> Verifier:
    """The rules of the laboratory, with these of ``[verification]`` changed; ``harmless`` alarms hold nothing."""
    settings = Rules(auto_release=auto_release, hold=hold, **rules)
    return Verifier(settings, tables()[0], lambda alarm: alarm not in harmless, ZONE)


def analyzer(
    *,
    profile: str = "generic-hl7",
    more_codes: str = "",
    identity: Any = "barcode",
    pattern: str = "",
    qc_ids: tuple[str, ...] = (),
    **rules: Any,
) -> AnalyzerRules:
    """One analyzer's rules; ``rules`` are those of ``[verification]``."""
    return AnalyzerRules(
        "a-1",
        profiles.load(profile, [ANALYZERS]),
        ZONE,
        tables(more_codes)[1],
        verifier(**rules),
        identity,
        re.compile(pattern) if pattern else None,
        tuple(map(re.compile, qc_ids)),
    )


def revision(
    rules: AnalyzerRules,
    *,
    routes: tuple[Route, ...] = (Route("his"),),
    charset: str = "UTF-8",
    resend: Any = "changed",
    wait: float | None = None,
    others: tuple[str, ...] = (),
    attachments: bool = False,
) -> Revision:
    """The revision with this analyzer, the destination ``his`` as described, and plain ``others``."""
    catalogue = tables()[0]
    view = {code: oru.Coded(code) for code in catalogue.tests}
    plain = oru.compile(oru.OruForm(), view, zone=ZONE)
    his = Outlet("his", oru.compile(oru.OruForm(charset=charset), view, zone=ZONE), resend, wait, attachments)
    outlets = {"his": his, **{name: Outlet(name, plain) for name in others}}
    return Revision(b"r" * 32, b"{}", "Lab", ZONE, catalogue, {rules.name: rules}, outlets, routes)


def moment(seconds: float = 0.0) -> Moment:
    """So many seconds after ten past ten; its random bits are always the same."""
    return Moment.of(NOW + seconds, ZONE, bytes)


def result(code: str, value: str, *, at: float | None = -600.0, **more: Any) -> Result:
    """A result measured ``at`` seconds from now (None: it does not say when), in the unit of its test."""
    instant = None if at is None else int(NOW + at)
    measured = "" if instant is None else datetime.fromtimestamp(instant, ZONE).strftime("%Y%m%d%H%M%S")
    number = value if re.fullmatch(r"-?\d+(\.\d+)?", value) else ""
    said = {"kind": "number" if number else "text", "number": number, "unit": UNITS.get(code, ""), **more}
    return Result(code, value, measured=measured, measured_at=instant, **said)


def report(*results: Result, specimen: str = "S1", **more: Any) -> Report:
    """A report of an adult man's specimen."""
    return Report(Specimen(id=specimen), results, **{"patient": ADULT, **more})


def past(said: Report, decided: tuple[Decided, ...], *, at: float = -300.0, digest: bytes = b"", content: bytes = b"") -> Past:
    """A report that came ``at`` seconds from now."""
    return Past("a-1", NOW + at, digest, content, said, decided)


def codes(decided: Any) -> list[str]:
    """The codes of all reasons, in order."""
    reasons: list[Reason] = [reason for one in decided for reason in one.verdict.reasons]
    return [reason.code for reason in reasons]


def actions(decided: Any) -> dict[str, str]:
    """What became of each code."""
    return {one.code: one.verdict.action for one in decided}


def observations(payload: bytes) -> list[tuple[str, str, str]]:
    """Test, value and status of each OBX of a message."""
    rows = [line.split("|") for line in payload.decode().split("\r") if line.startswith("OBX")]
    return [(row[3].split("^")[0], row[5], row[11]) for row in rows]
