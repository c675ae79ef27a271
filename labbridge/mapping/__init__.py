"""Analyzer code, unit and value become the laboratory's own test, unit and value: loads ``mappings/*.csv``.

In come CSV files that lab IT keeps in a spreadsheet; out come a ``Catalogue`` (tests, limits, panels) and one
``CodeMap`` per analyzer model. Only the two load functions read files; mapping and judging are pure. Nothing here
decides whether a result is released: that is ``verification``.
"""

from labbridge.mapping.catalogue import COLUMNS, Catalogue, Test, load_catalogue
from labbridge.mapping.codes import CODES, WORDS, CodeMap, Mapped, load_code_map
from labbridge.mapping.limits import Interval, Limits
from labbridge.mapping.sheet import Sheet
from labbridge.mapping.tables import Drafts, MappingError, Mistake

__all__ = [
    "Catalogue",
    "CodeMap",
    "Drafts",
    "Interval",
    "Limits",
    "Mapped",
    "MappingError",
    "Mistake",
    "Sheet",
    "Test",
    "columns_of",
    "load_catalogue",
    "load_code_map",
]


def columns_of(file: str) -> tuple[str, ...]:
    """The columns that a table of this name may have; tests.csv may have others, with hospitals' codes."""
    return COLUMNS.get(file) or (WORDS if file.endswith(".values.csv") else CODES)
