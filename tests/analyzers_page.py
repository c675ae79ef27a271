"""Writes docs/analyzers.md from the profiles, their evidence and their samples: `make pages`."""

import json
from pathlib import Path

from labbridge import profiles
from labbridge.profiles import Profile

ROOT = Path(__file__).parents[1]
ANALYZERS = ROOT / "analyzers"
PAGE = ROOT / "docs" / "analyzers.md"
PROTOCOLS = {"hl7v2": "HL7 v2", "lis02": "ASTM"}
FRAMINGS = {"mllp": "MLLP", "lis01": "LIS01"}
SOURCES = {"manual": "a manual", "capture": "captured messages", "fixture": "a test message"}

_HEAD = """\
# Analyzers: the profiles that come with labbridge

This page is written by `make pages` from the profiles themselves.

Each profile was written from public manuals and captured messages, as its `[evidence]` says (below). It is proven by its
samples, which are synthetic: `labbridge test` reads each and compares it with the file beside it. Captured messages are not
ours to give away: who has a folder of them names it in `LABBRIDGE_CORPUS`, and `tests/test_corpus.py` reads those too.
**No profile has been verified on hardware yet.** Before a device goes live, capture its own messages, run them through
`labbridge try`, and look at every result. `labbridge identify` says which profile fits a message of a device that you do
not know.

"""
_NOTES = """\
The suggested code map of each profile is `mappings/<profile>.csv`. `generic-hl7` and `generic-astm` read any analyzer that
keeps to the letter of its standard; they are also the place to begin with one that does not: see
[profiles](profiles.md#a-new-analyzer-in-20-lines).

## What to know of single models

- **cobas c 111.** It does not send again what was confirmed. A transmission that breaks off is kept as an *incomplete* message
  and shown by `labbridge pending`; it settles itself when the same frames come in a whole message. (That holds for every
  ASTM analyzer.)
- **GeneXpert.** The code has the assay's host code in it, which a laboratory chooses: the map is a pattern to copy.
- **CLINITEK Status.** The analyzer's own count stands where a specimen id usually is; the id that was typed or scanned is
  PID-3.
- **Mindray BC and BS.** MSH-18 cannot be relied on: UTF-8 is tried first, then GB18030.
- **Mindray BS, Sysmex XN and XP.** The specimen's `source` says whether the id was read from a barcode or counted.
- **Sysmex XP, GeneXpert, Mindray BS.** They send no result status for some or all results; the profile takes that for
  final.
"""


def shipped() -> list[Profile]:
    """Every profile that comes with labbridge."""
    return [profiles.load(name, [ANALYZERS]) for name in profiles.names([ANALYZERS])]


def by_discipline() -> dict[str, list[str]]:
    """The names of the profiles of each discipline; the generic dialects are of none."""
    found: dict[str, list[str]] = {}
    for profile in sorted(shipped(), key=lambda one: (one.discipline.casefold(), one.name)):
        if profile.discipline:
            found.setdefault(profile.discipline, []).append(profile.name)
    return found


def page() -> str:
    """The whole text of docs/analyzers.md."""
    known, evidence = [], []
    for one in shipped():
        link = f"{PROTOCOLS[one.protocol]}, {FRAMINGS[one.framing]}"
        verified = "yes" if one.evidence["verified_on_hardware"] else "no"
        about = (one.vendor, one.model, one.discipline or "any", link, _written_from(one), _samples(one), verified)
        known.append((f"`{one.name}`", *about))
        evidence += [(f"`{one.name}`", key, str(text)) for key, text in one.evidence.items() if key != "verified_on_hardware"]
    columns = ("profile", "vendor", "model", "discipline", "protocol", "written from", "samples", "verified on hardware")
    tables = _table(columns, known), _table(("profile", "from", "what"), evidence)
    return f"{_HEAD}{tables[0]}\n## The evidence\n\n{tables[1]}\n{_NOTES}"


def _written_from(profile: Profile) -> str:
    return ", ".join(words for key, words in SOURCES.items() if key in profile.evidence) or "the standard"


def _samples(profile: Profile) -> str:
    """How many samples there are, and of what."""
    read = [json.loads(file.read_text("utf-8")) for file in sorted((ANALYZERS / profile.name / "samples").glob("*.json"))]
    roles = {report["role"] for one in read for report in one.get("reports", ())}
    roles |= {"query" for one in read if one.get("queries")}
    order = ("patient", "qc", "calibration", "test", "unknown", "query")
    return f"{len(read)}: {', '.join(role for role in order if role in roles)}"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (columns, *rows)]
    lines.insert(1, "|---" * len(columns) + "|")
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
