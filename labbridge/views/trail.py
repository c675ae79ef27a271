"""The audit for people: what a filter asks of the store, a row on the screen, all rows as CSV."""

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from labbridge.showing import brief, shown
from labbridge.store import Reader
from labbridge.store.rows import Audit
from labbridge.views.actions import words
from labbridge.views.texts import _, time_text

NEWEST = 2**62  # above every id
EXPORT = 2000  # rows that are read at a time
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute


def titles() -> dict[str, str]:
    """The columns."""
    return {
        "at": _("When"),
        "actor": _("Who"),
        "action": _("Did what"),
        "subject": _("On what"),
        "reason": _("Reason"),
        "old": _("Changed from"),
        "new": _("Changed to"),
    }


def conditions(given: Mapping[str, str], zone: ZoneInfo) -> dict[str, Any]:
    """For the store: who (actor), did what (action), on what (subject), between two days (first, last; as 2026-11-22)."""
    days = {"since": _midnight(given.get("first", ""), zone, 0), "until": _midnight(given.get("last", ""), zone, 1)}
    values = {name: given.get(name, "").strip() for name in ("actor", "action", "subject")}
    return {**values, **{name: at for name, at in days.items() if at is not None}}


def _midnight(day: str, zone: ZoneInfo, later: int) -> int | None:
    """The beginning of a day, or of one so many days later, in microseconds since 1970; None where there is no such day."""
    try:
        at = date.fromisoformat(day) + timedelta(days=later)
    except (ValueError, OverflowError):
        return None
    return int(datetime(at.year, at.month, at.day, tzinfo=zone).timestamp() * 1_000_000)


def cells(row: Audit) -> dict[str, Any]:
    """A row as the table takes it."""
    given = {"actor": row.actor, "subject": row.subject, "reason": row.reason}
    given |= {"action": words().get(row.action, row.action), "old": told(row.old, row.new), "new": told(row.new, row.old)}
    return {"id": row.id, "at": time_text(row.at), **{name: brief(text) for name, text in given.items()}}


def told(text: str, other: str) -> str:
    """A value before or after a change for people: of several named ones, those that differ."""
    try:
        named, others = msgspec.json.decode(text, type=dict[str, Any]), msgspec.json.decode(other or "{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        return text
    different = {name: value for name, value in named.items() if name not in others or others[name] != value}
    return ", ".join(f"{name} {value}" for name, value in different.items())


def whole(row: Audit, zone: ZoneInfo) -> list[str]:
    """All of a row, as long as it is, in the order of the columns."""
    at = datetime.fromtimestamp(row.at / 1e6, zone).isoformat(sep=" ", timespec="seconds")
    return [at, *map(shown, (row.actor, row.action, row.subject, row.reason, row.old, row.new))]


def lines(reader: Reader, wanted: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    """The rows of a filter as CSV for a spreadsheet, some at a time, however many there are."""
    text = io.StringIO()
    writer = csv.writer(text)
    text.write("\ufeff")  # a spreadsheet takes it for UTF-8
    writer.writerow(Audit.__struct_fields__)
    before = NEWEST
    while rows := reader.audit_trail(before=before, limit=EXPORT, **wanted):
        before = rows[-1].id
        writer.writerows((row.id, *map(cell, whole(row, zone))) for row in rows)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def cell(text: str) -> str:
    """The text, which no spreadsheet may take for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
