"""Which profiles fit a captured message, and why: what `labbridge identify` shows.

The capture is taken out of its frames and read, mapped and judged with every profile of its protocol, by the pipeline that
`labbridge try` runs. A profile gains by a header that is its model's (``[profile] sender``), by codes that its map knows, and
by a specimen id where it looks for one; a header that names somebody else counts against it. Nothing is stored or sent.
"""

import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from labbridge import capture, config, profiles, revision
from labbridge.config import Settings
from labbridge.formats import er7
from labbridge.language import Condition, Path
from labbridge.model import Report
from labbridge.trial import Found, Trial, trial_settings, try_messages
from labbridge.verification.reasons import Language, render

LIMIT = 64 * 1024  # bytes of a capture that are looked at
_MESSAGES = 20  # of a capture that are read
_SHOWN = 5
_FITS = 30

Sender = Literal["named", "like", "other", "unsaid"]
# What the header is worth, against 40 points for codes that are all known and 10 for a specimen id. So a profile whose header
# is not seen fits by three codes of four, or by half of them with a specimen id, and never against a header.
_WORTH: dict[Sender, int] = {"named": 50, "like": 25, "unsaid": 0, "other": -50}
_PROTOCOLS = {"hl7v2": "HL7 v2", "lis02": "ASTM"}
_HEADER = re.compile(r"(?:MSH|H(?=[^\w\s]))[^\r\n]{3,2000}")
_BEGIN = re.compile(rb"(?:\A|[\r\n])[ \t]*(?:MSH|H(?=[^\w\s]))")


class Header(NamedTuple):
    """The header of a message: its delimiters and its fields, ``fields[n]`` being field n as in the standards."""

    protocol: str
    delimiters: er7.Delimiters
    fields: list[str]

    @property
    def sender(self) -> str:
        """Who it says that it is from: MSH-3 and MSH-4, or H-5, as sent."""
        names = (3, 4) if self.protocol == "hl7v2" else (5,)
        return self.delimiters.field.join(filter(None, (self.text(Path("", name)) for name in names)))

    @property
    def version(self) -> str:
        """The type and version of an HL7 message, the version of an ASTM one."""
        told = (9, 12) if self.protocol == "hl7v2" else (13,)
        return " ".join(filter(None, (self.text(Path("", field)) for field in told)))

    @property
    def marks(self) -> str:
        """Its delimiters as they are written."""
        return self.delimiters.field + self.text(Path("", 2))

    def text(self, path: Path) -> str:
        """What stands at a place, blanks at its ends removed; the first two fields are never cut."""
        raw = self.fields[path.field] if path.field < len(self.fields) else ""
        if path.component and path.field > 2:
            raw = er7.nth(raw.partition(self.delimiters.repeat)[0], self.delimiters.component, path.component)
        return raw.strip()

    def fits(self, condition: Condition) -> bool:
        """Whether a profile's ``sender`` holds of it."""
        own = "MSH" if self.protocol == "hl7v2" else "H"
        return any(
            all(test.path.segment == own and test.pattern.fullmatch(self.text(test.path)) for test in table) for table in condition
        )


class Seen(msgspec.Struct, frozen=True):
    """What can be said of a capture without any profile."""

    framing: str
    protocol: str = ""  # empty: neither HL7 v2 nor ASTM
    version: str = ""
    delimiters: str = ""
    sender: str = ""
    messages: int = 0
    cut: bool = False  # only the first ``LIMIT`` bytes or ``_MESSAGES`` transmissions were looked at


class Candidate(msgspec.Struct, frozen=True):
    """How one profile fits; ``points`` are for the order alone."""

    profile: str
    model: str
    points: int
    fits: bool
    sender: Sender
    codes: int  # different ones that were sent
    known: int  # of them in the profile's suggested map
    specimen: str
    roles: tuple[str, ...]
    results: int
    held: int
    because: tuple[str, ...]  # why most of what is held would be, in words
    queries: int
    notes: tuple[str, ...]
    generic: bool


class Identified(NamedTuple):
    """What is known of a capture: what was seen, and the profiles that may be meant, the best first."""

    seen: Seen
    candidates: list[Candidate]
    error: str = ""  # why no profile reads it

    @property
    def fits(self) -> bool:
        """Whether any profile of a model fits."""
        return any(one.fits for one in self.candidates)

    def as_json(self, file: str) -> dict[str, Any]:
        """What `labbridge identify --json` prints."""
        return {"file": file, "fits": self.fits, "seen": self.seen, "profiles": self.candidates, "error": self.error}


class Identifier:
    """Every profile and its map, compiled once; raises RevisionError or ProfileError for what does not load."""

    def __init__(self, settings: Settings | None) -> None:
        base = settings or config.load(revision.packaged("config.example.toml"))
        names = profiles.names(revision.folders(base, "analyzers"))
        trying, _ = trial_settings(settings, names[0], "")
        (analyzer,) = trying.analyzers
        every = tuple(msgspec.structs.replace(analyzer, name=name, profile=name, mapping="") for name in names)
        plain = msgspec.structs.replace(trying.verification, auto_release=True, stale=1e12, hold="result")
        self._trial = Trial(msgspec.structs.replace(trying, analyzers=every, verification=plain), names[0])
        self._language: Language = base.site.language

    def identify(self, data: bytes) -> Identified:
        """Tries a capture with every profile of its protocol; at most five are told."""
        cut = len(data) > LIMIT
        if cut:  # after a whole line
            data = data[: max(data.rfind(b"\r", 0, LIMIT), data.rfind(b"\n", 0, LIMIT)) + 1 or LIMIT]
        framing = _framing(data)
        unframed = {each: capture.messages(data, each) for each in ("mllp", "lis01")}
        header = next((head for payloads, _ in unframed.values() for one in payloads[:1] if (head := _header(one))), None)
        if header is None:
            return Identified(Seen(framing, cut=cut), [], "neither HL7 v2 nor ASTM: there is no MSH and no H")
        payloads, _ = unframed["mllp" if header.protocol == "hl7v2" else "lis01"]
        count = sum(len(_BEGIN.findall(each)) for each in payloads)
        cut |= len(payloads) > _MESSAGES
        seen = Seen(framing, _PROTOCOLS[header.protocol], header.version, header.marks, header.sender, count, cut)
        found: list[Candidate] = []
        errors = Counter[str]()
        for rules in self._trial.revision.analyzers.values():
            if rules.profile.protocol == header.protocol:
                payloads, notes = unframed[rules.profile.framing]
                self._trial.rules = rules
                tried = try_messages(self._trial, payloads[:_MESSAGES], list(notes), time.time())
                if tried.outcomes or tried.queries or _sender(rules.profile, header) in ("named", "like"):
                    found.append(self._candidate(rules.profile, header, tried))
                else:
                    errors[tried.error] += 1
        found = sorted(filter(_may_be_meant, found), key=lambda one: (-one.points, one.held - one.results, one.profile))
        error = "" if found or not errors else errors.most_common(1)[0][0]
        return Identified(seen, found[:_SHOWN], error)

    def _candidate(self, profile: profiles.Profile, header: Header, tried: Found) -> Candidate:
        reports = [outcome.report for outcome in tried.outcomes]
        codes = {result.code for report in reports for result in report.results}
        known = sum(map(self._trial.rules.codes.knows, codes))
        decided = [one for outcome in tried.outcomes for one in outcome.decision.results]
        held = [one for one in decided if one.verdict.action == "hold"]
        why = Counter(render(reason, self._language) for one in held for reason in one.verdict.reasons)
        why.update(render(reason, self._language) for report in reports if not report.results for reason in report.problems)
        specimen = _specimen(reports) or next((each for query in tried.queries for each in query.specimens), "")
        sender = _sender(profile, header)
        points = _WORTH[sender] + (40 * known // len(codes) if codes else 0) + (10 if specimen else 0)
        generic = not profile.sender and profile.vendor == "generic"
        return Candidate(
            profile.name,
            profile.model,
            points,
            points >= _FITS and not generic,
            sender,
            len(codes),
            known,
            specimen,
            tuple(dict.fromkeys(report.role for report in reports)),
            len(decided),
            len(held),
            tuple(text for text, _ in why.most_common(2)),
            len(tried.queries),
            tuple(tried.notes),
            generic,
        )


def _framing(data: bytes) -> str:
    if capture.SB in data:
        return "MLLP"
    return "LIS01 frames" if capture.STX in data else "no frames"


def _header(payload: bytes) -> Header | None:
    """The first line of a message that is HL7 v2 or ASTM; None for anything else."""
    line = _HEADER.match(payload[:4096].removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip(" \t\r\n\0"))
    if line is None:
        return None
    text = line[0]
    if text.startswith("MSH"):
        fields = ["MSH", text[3], *text[4:].split(text[3])]
        return Header("hl7v2", er7.Delimiters(text[3], *f"{fields[2]:4}"[:4]), fields)
    fields = ["", *text.split(text[1])]  # the letter is field 1
    marks = f"{fields[2]:3}"
    return Header("lis02", er7.Delimiters(text[1], component=marks[1], repeat=marks[0], escape=marks[2], sub=""), fields)


def _sender(profile: profiles.Profile, header: Header) -> Sender:
    """What the header says of a profile's model."""
    if not profile.sender:
        return "unsaid"
    if header.fits(profile.sender):
        return "named" if header.sender else "like"
    return "other" if header.sender else "unsaid"


def _may_be_meant(one: Candidate) -> bool:
    """Whether anything speaks for a profile."""
    return one.generic or one.sender in ("named", "like") or (one.known > 0 and one.points >= 0)


def _specimen(reports: Sequence[Report]) -> str:
    return next((report.specimen.id for report in reports if report.specimen.id), "")
