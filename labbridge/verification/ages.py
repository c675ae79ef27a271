"""The age of a patient in days, from a birth date or an age as analyzers send them."""

import re
from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache

from labbridge.mapping.limits import age_in_days as days_of
from labbridge.model import Patient

_AGE = re.compile(r"\s*(\d{1,3})\s*([dwmy])", re.IGNORECASE | re.ASCII)


def age_in_days(patient: Patient, now: float, zone: tzinfo = UTC) -> int | None:
    """Days lived at ``now`` (seconds since 1970) on the calendar of ``zone``; None when they cannot be told.

    A birth date of a year or a month alone tells too little near the borders of the limits: then the age that was sent
    counts, if one was.
    """
    days = _since_birth(patient.birth[:8], datetime.fromtimestamp(now, zone).date()) if patient.birth else None
    match = _AGE.match(patient.age) if days is None else None
    return days_of((match[1] + match[2]).lower()) if match else days


@lru_cache(maxsize=4096)
def _since_birth(birth: str, today: date) -> int | None:
    try:
        days = (today - date.fromisoformat(birth)).days
    except ValueError:
        return None
    return days if 0 <= days < 130 * 366 else None
