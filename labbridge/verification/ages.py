"""The age of a patient in days, from a birth date or an age as analyzers send them."""

import re
from datetime import UTC, date, datetime
from functools import lru_cache

from labbridge.model import Patient

_DAYS = {"d": 1.0, "w": 7.0, "m": 30.4375, "y": 365.25}
_AGE = re.compile(r"^\s*(\d{1,3})\s*([dwmy])", re.IGNORECASE)


def age_in_days(patient: Patient, now: float) -> int | None:
    """Days lived at ``now`` (seconds since 1970); None when it cannot be told or is impossible.

    A birth date of a year or a month alone tells too little near the borders of the limits: None.
    """
    if patient.birth:
        return _since_birth(patient.birth[:8], int(now // 86400))
    match = _AGE.match(patient.age)
    return int(int(match[1]) * _DAYS[match[2].lower()]) if match else None


@lru_cache(maxsize=4096)
def _since_birth(birth: str, today: int) -> int | None:
    try:
        born = date(int(birth[:4]), int(birth[4:6]), int(birth[6:8]))
    except ValueError:
        return None
    days = (datetime.fromtimestamp(today * 86400, UTC).date() - born).days
    return days if 0 <= days < 130 * 366 else None
