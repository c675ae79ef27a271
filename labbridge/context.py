"""What is known of the specimens that a batch decides on: their earlier reports, and what these have said together. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from labbridge.model import Decided, Patient, Report
from labbridge.verification import Known

PAST = 200  # so many earlier reports of one specimen are looked at one by one


class Past(Struct, frozen=True):
    """An earlier report of a specimen, with its verdicts as they stand now."""

    analyzer: str
    at: float
    digest: bytes  # of the message it came in
    content: bytes  # of what it says; empty where the sender numbers its messages
    report: Report
    decided: tuple[Decided, ...]


def identity_of(patient: Patient) -> tuple[str, ...]:
    """What a patient is told apart by: id, family name, given name, birth, sex."""
    return patient.id, patient.family, patient.given, patient.birth, patient.sex


class _Specimen:
    """What is known of one specimen, summed up when it is asked for: a message may hold thousands of reports on it."""

    def __init__(self, past: Iterable[Past]) -> None:
        self.past: list[Past] = list(past)
        self._summed = 0  # so many of them are in what follows
        self._released: dict[str, Known] = {}
        self._named: tuple[set[str], ...] = ()  # the patients of what still counts

    @property
    def released(self) -> dict[str, Known]:
        """Per test, what was released of it."""
        self._sum_up()
        return self._released

    @property
    def named(self) -> tuple[set[str], ...]:
        """The ids, family names, given names, births and sexes that what still counts names."""
        self._sum_up()
        return self._named

    def _sum_up(self) -> None:
        self._named = self._named or tuple(set() for _ in identity_of(Patient()))
        for past in self.past[self._summed :]:
            self._add(past)
        self._summed = len(self.past)

    def _add(self, past: Past) -> None:
        counts = False
        for one in past.decided:
            action = one.verdict.action
            counts |= action in ("release", "hold")
            if action == "release":
                before = self._released.get(one.test)
                final = one.status != "P" or (before is not None and before.final)
                if before is None or (one.measured_at or 0) >= (before.measured_at or 0):
                    self._released[one.test] = Known(one.value, one.measured_at, final)
                elif final != before.final:
                    self._released[one.test] = replace(before, final=final)
        if counts:
            for seen, said in zip(self._named, identity_of(past.report.patient), strict=True):
                if said:
                    seen.add(said)


class Context:
    """What is known of the specimens of a batch; grows as the batch is decided."""

    def __init__(self, past: Mapping[str, Sequence[Past]] | None = None) -> None:
        self._known: dict[str, _Specimen] = {key: _Specimen(value) for key, value in (past or {}).items()}

    def past(self, key: str) -> Sequence[Past]:
        """The earlier reports under one identity, the newest last, as many as the store tells."""
        return self._known[key].past[-PAST:] if key in self._known else ()

    def add(self, key: str, past: Past) -> None:
        """Puts one more report after the earlier ones."""
        if key in self._known:
            self._known[key].past.append(past)
        else:
            self._known[key] = _Specimen((past,))

    def forget(self, reports: Sequence[Report]) -> None:
        """Takes reports out again: their message could not be decided whole."""
        gone = set(map(id, reports))
        for key, known in self._known.items():
            kept = [one for one in known.past if id(one.report) not in gone]
            if len(kept) < len(known.past):
                self._known[key] = _Specimen(kept)

    def released(self, key: str) -> Mapping[str, Known]:
        """The specimen's tests that were released: per test, the value that was measured last."""
        return self._known[key].released if key in self._known else {}

    def names_another(self, key: str, patient: Patient) -> bool:
        """Tells whether an earlier report that still counts names another patient, by id, name, birth or sex."""
        if key not in self._known:
            return False
        both = zip(self._known[key].named, identity_of(patient), strict=True)
        return any(said and seen and seen != {said} for seen, said in both)
