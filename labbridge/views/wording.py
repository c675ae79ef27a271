"""A specimen's results in words: what stands in the panel of a sheet, line by line."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from labbridge.model import Decision
from labbridge.showing import brief
from labbridge.verification.ages import age_in_days
from labbridge.views.listing import columns, joined, place_text, who_text
from labbridge.views.sheet import Head, Line, Run, Sheet
from labbridge.views.story import state_text, verdict_text
from labbridge.views.texts import _, language, reason_text, time_text


def deed_word(command: str) -> str:
    """What a command is called."""
    words = {
        "release": _("Release"),
        "reject": _("Reject"),
        "not-reportable": _("Not reportable"),
        "recollect": _("Recollect"),
        "edit": _("Edit or enter"),
        "comment": _("Comment"),
        "call-back": _("Call back"),
        "acknowledge": _("Acknowledge"),
        "correct-id": _("Correct the id"),
        "confirm-id": _("Confirm the id"),
        "withdraw-id": _("Withdraw"),
        "release-mapped": _("Release what is mapped now"),
        "retry": _("Retry"),
    }
    return words.get(command, command)


def heading() -> list[dict[str, Any]]:
    """The columns."""
    names = {"test": _("Test"), "value": _("Value"), "reference": _("Reference"), "before": _("Before")}
    return columns({**names, "why": _("State and why")})


def patient_text(sheet: Sheet, zone: ZoneInfo) -> str:
    """Name, sex, age and ward, as far as they were sent."""
    patient = sheet.patient
    name = brief(" ".join(filter(None, (patient.family, patient.given))), 60)
    who = who_text(age_in_days(patient, sheet.heads[0].at / 1e6, zone), patient.sex)
    return joined(name, who, brief(patient.id, 40), brief(patient.location, 40))


def head_text(head: Head) -> str:
    """A report without its results."""
    place = place_text(head.specimen.rack, head.specimen.position)
    problems, comments = brief(reason_text(head.problems), 400), map(brief, head.comments[:3])
    return joined(head.analyzer, time_text(head.at), place, state_text(head.state), problems, *comments)


def note_text(one: Decision) -> str:
    """What a person did, in one line."""
    told = back = ""
    if one.told:
        told = _("told {who} at {when}", who=brief(one.told, 80), when=time_text((one.told_at or 0) * 1_000_000))
        back = _("read back") if one.read_back else _("not read back")
    tests = ", ".join(one.tests or dict.fromkeys(result.test or result.code for result in one.results))
    return joined(one.actor, deed_word(one.kind), brief(tests, 100), told, back, brief(one.comment, 300))


def value_text(line: Line) -> str:
    """A test and its value, as a deed names them."""
    now = line.now
    value = f"{brief(line.test, 60)}  {brief(now.value, 60)} {_unit(now)}".rstrip()
    return f"{value} — {_('critical')}" if now.critical else value


def cells(line: Line) -> dict[str, Any]:
    """One test as a row of the table: texts only."""
    now, about = line.now, line.about
    last = line.earlier[-1] if line.earlier else None
    name = (about.name_zh if language() == "zh" and about.name_zh else about.name) if about else _("not mapped")
    several = len(line.runs) > 1 or now.result.dilution or now.result.run
    return {
        "id": line.test,
        "test": brief(about.short or line.test if about else line.test, 60),
        "name": brief(name, 80),
        "value": brief(now.value, 120),
        "unit": _unit(now),
        "flag": _flag_word(now.decided.flag) or (_("critical") if now.critical else ""),
        "critical": now.critical,
        "held": now.held,
        "reference": brief(now.decided.reference, 60),
        "before": f"{brief(last.value, 40)} · {time_text(last.at * 1_000_000)}" if last else "",
        "change": line.change,
        "trend": line.trend,
        "runs": list(map(_run, line.runs)) if several else [],
        "state": joined(verdict_text(now.decided.verdict.action), _("called back") if now.critical and now.told else ""),
        "why": list(dict.fromkeys(brief(reason_text([one]), 300) for one in now.decided.verdict.reasons)) if now.held else [],
        "says": _says(now),
    }


def _unit(run: Run) -> str:
    return brief(run.decided.print_unit or run.result.unit, 30)


def _flag_word(flag: str) -> str:
    words = {"HH": _("⇈ critically high"), "LL": _("⇊ critically low"), "H": _("↑ high"), "L": _("↓ low"), "A": _("abnormal")}
    return words.get(flag, "")


def _run(one: Run) -> str:
    """A run beside the others: value, dilution, run, where and when, what became of it."""
    dilution = _("dilution {dilution}", dilution=brief(one.result.dilution, 20)) if one.result.dilution else ""
    number = _("run {run}", run=brief(one.result.run, 20)) if one.result.run else ""
    state = verdict_text(one.decided.verdict.action)
    return joined(brief(one.value, 40), dilution, number, one.analyzer, time_text(one.at), state)


def _says(one: Run) -> Sequence[str]:
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
    return [*found, *map(brief, one.result.comments[:3])]
