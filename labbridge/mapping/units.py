"""Units: vendors' spellings become UCUM, and one UCUM unit converts to another exactly or not at all.

What laboratories meet daily (counts, mass, substance and activity per volume, shares) is converted here by powers of
ten. The UCUM registry, slow to import, is asked for the rest. A conversion that needs to know the analyte (mg/dL to
mmol/L, meq/L to mmol/L, HbA1c's % to mmol/mol, FEU to DDU) is refused: it needs an explicit factor.
"""

import re
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

# A vendor's spelling, without blanks, and the UCUM unit that it means. G/L is giga, not gram.
_SPELLED = """
    K/uL=10*3/uL M/uL=10*6/uL G/L=10*9/L T/L=10*12/L cells/uL=/uL /100WBC=/100{WBC} um3=fL um^3=fL fl=fL l/L=L/L ml/L=mL/L
    ‰=[ppth] mmHg=mm[Hg] KPa=kPa kpa=kPa sec=s sec.=s Sec=s mm/1h=mm/h mm/hr=mm/h pH=[pH] INR={INR} COI={COI} S/CO={S_CO}
    KIU/L=k[IU]/L copies/mL={copies}/mL cps/mL={copies}/mL mEq/L=meq/L mOsm/kg=mosm/kg mL/min/1.73m2=mL/min/{1.73_m2}
    mL/min/1.73m^2=mL/min/{1.73_m2}
"""
_SPELLINGS = dict(pair.split("=") for pair in _SPELLED.split())
_FOLD = str.maketrans("µμ⁰¹²³⁴⁵⁶⁷⁸⁹", "uu0123456789")
_RAISED = re.compile(r"10(?=[⁰¹²³⁴⁵⁶⁷⁸⁹])")
_PATTERNS = (
    (re.compile(r"^[x×*]? ?(?:10 ?[\^*E] ?|1E)0?(\d{1,2}) ?/", re.ASCII), r"10*\1/"),
    (re.compile(r"/([dcmunpf]?)l\b"), r"/\1L"),
    (re.compile(r"/mm3$"), "/uL"),
    (re.compile(r"^([kmu]?)IU/"), r"\1[IU]/"),
    (re.compile(r"^(\w+)/(\w*L) ?(FEU|DDU)$"), r"\1{\3}/\2"),
)

_PER_VOLUME = re.compile(
    r"(?:10\*(?P<power>\d+)\.?)?(?:(?P<prefix>[kdcmunpf]?)(?P<base>g|mol|\[IU\]|U|kat|eq|osm))?(?P<note>\{\w+\})?"
    r"/(?P<volume>[dcmunpf]?)L"
)
_PREFIXES = {"": 0, "k": 3, "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
_SHARES = {"1": 0, "L/L": 0, "%": -2, "[ppth]": -3, "mL/L": -3}
_KNOWN = {"fL", "pg", "s", "mm/h", "/[HPF]", "[pH]", "mm[Hg]", "kPa", "mosm/kg", "mmol/mol", "mg/mmol", "mL/min/{1.73_m2}"}
_NOTE = re.compile(r"\{[^}]*\}")
_OF_THE_ANALYTE = re.compile("eq|osm")


@lru_cache(maxsize=1024)
def ucum(text: str) -> str:
    """The UCUM unit that a vendor's spelling means; the text itself where it is UCUM or unknown."""
    unit = _RAISED.sub("10*", text.strip()).translate(_FOLD)
    for pattern, meant in _PATTERNS:
        unit = pattern.sub(meant, unit)
    return _SPELLINGS.get(unit.replace(" ", ""), unit)


def is_valid(unit: str) -> bool:
    """Tells whether a text is a UCUM unit, or empty for none."""
    return is_pure_number(unit) or unit in _KNOWN or _exponent(unit) is not None or _quantity(unit) is not None


def is_pure_number(unit: str) -> bool:
    """Tells whether a number in this unit stands for itself: no unit, a ratio, an arbitrary index."""
    return unit in ("", "1", "[pH]") or _NOTE.fullmatch(unit) is not None


def by_powers(source: str, target: str) -> Decimal | None:
    """The factor between two UCUM units that differ by a power of ten alone, else None."""
    old, new = _exponent(source), _exponent(target)
    if source == target or old is None or new is None or old[0] != new[0]:
        return Decimal(1) if source == target else None
    return Decimal(1).scaleb(old[1] - new[1])


def is_share_of_count(source: str, target: str) -> bool:
    """Tells whether one unit is a share (%) and the other an amount per volume: never the same measurement."""
    old, new = _exponent(source), _exponent(target)
    return old is not None and new is not None and (old[0] == "share") != (new[0] == "share")


def conversion(source: str, target: str) -> Decimal | None:
    """The factor from one UCUM unit to another; None where none holds for every analyte."""
    factor = by_powers(source, target)
    if factor is not None or (_exponent(source) and _exponent(target)):
        return factor
    if any(set(pattern.findall(source)) != set(pattern.findall(target)) for pattern in (_NOTE, _OF_THE_ANALYTE)):
        return None
    old, new = _quantity(source), _quantity(target)
    if old is None or new is None or old.dimensionless or old.dimensionality != new.dimensionality:
        return None
    return Decimal(format((old / new).to("dimensionless").magnitude, ".12g"))


def _exponent(unit: str) -> tuple[str, int] | None:
    """What a unit measures and its power of ten, for the units that this file converts itself."""
    if unit in _SHARES:
        return "share", _SHARES[unit]
    parts = _PER_VOLUME.fullmatch(unit)
    if parts is None:
        return None
    power = int(parts["power"] or 0) + _PREFIXES[parts["prefix"] or ""] - _PREFIXES[parts["volume"]]
    return f"{parts['base'] or 'count'}{parts['note'] or ''}/L", power


@cache
def _registry() -> Any:
    import ucumvert

    return ucumvert.PintUcumRegistry()


def _quantity(unit: str) -> Any | None:
    """One of a unit as a quantity of the UCUM registry; None where it is not UCUM."""
    import lark
    import pint

    try:
        return _registry().from_ucum(unit)
    except (ValueError, lark.exceptions.LarkError, pint.errors.PintError):
        return None
