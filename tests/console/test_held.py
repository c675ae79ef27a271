"""The rows of what waits for a person: urgency, cause, what is missing, and a picture that equals what is stored."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labbridge import model
from labbridge.config import Address, Destination, Settings
from labbridge.config.settings import Site, StoreSettings
from labbridge.model import Decided, Decision, Patient, Reason, Report, Result, Specimen, Verdict
from labbridge.store import Reader, Store, figures
from labbridge.store.figures import Figures
from labbridge.store.rows import Earlier
from labbridge.views.held import Held, Panels
from labbridge.views.rows import Key, cause_of, row_of, whys_of
from tests.small_lab import tables

ZONE = ZoneInfo("Asia/Shanghai")
AT = 1_795_000_000_000_000
AUTO_OFF, ALARM = Reason("auto-release-off"), Reason("alarm", {"alarm": "ISE", "en": "ISE alarm"})


def critical(value: str) -> Reason:
    return Reason("critical", {"value": value, "unit": "mmol/L"})


def decided(test: str, *reasons: Reason, index: int = 0, action: Any = "") -> Decided:
    verdict = Verdict(action or ("hold" if reasons else "release"), reasons)
    return Decided(index, test.lower(), verdict, test, "7.2")


def earlier(
    *results: Decided, report: Report | None = None, more: tuple[Decision, ...] = (), at: int = AT, number: int = 1
) -> Earlier:
    said = report or Report(Specimen("S1", rack="5", position="3"), tuple(Result(one.code) for one in results))
    documents = tuple(map(model.encode, (Decision(results), *more)))
    return Earlier(number, 1, at, "c311-1", "S1", "S1", "P1", "patient", b"", b"", "held", model.encode(said), documents)


def test_a_row_says_whom_where_and_why() -> None:
    report = Report(
        Specimen("S1", rack="5", position="3"),
        (Result("k"), Result("na")),
        patient=Patient(birth="19900101", sex="F", location="ICU"),
    )
    row = row_of(earlier(decided("K", AUTO_OFF, critical("7.2")), decided("NA", AUTO_OFF, index=1), report=report), ZONE)
    assert (row.specimen, row.analyzer, row.rack, row.position, row.sex, row.ward) == ("S1", "c311-1", "5", "3", "F", "ICU")
    assert row.age is not None
    assert row.age // 365 == 36
    assert [(why.reason.code, why.tests) for why in row.whys] == [("critical", ("K",)), ("auto-release-off", ())]
    assert row.critical
    assert not row.told


def test_a_critical_value_that_somebody_took_up_is_told() -> None:
    called = Decision((), "anna", kind="call-back", told="Dr Wu", read_back=True, tests=("K",))
    heard = Decision((), "anna", kind="acknowledge", tests=("K",))
    deaf = Decision((), "anna", kind="call-back", told="Dr Wu", tests=("K",))
    comment = Decision((), "anna", "hm", "comment")
    told = {
        one.kind + str(one.read_back): row_of(earlier(decided("K", critical("7.2")), more=(one,)), ZONE).told
        for one in (called, heard, deaf, comment)
    }
    assert told == {"call-backTrue": True, "acknowledgeFalse": True, "call-backFalse": False, "commentFalse": False}


def test_what_is_only_kept_back_is_counted_and_no_reason() -> None:
    row = row_of(earlier(decided("K", ALARM), decided("NA", Reason("held-with", {"test": "K"}), index=1)), ZONE)
    assert (row.kept_back, [why.reason.code for why in row.whys]) == (1, ["alarm"])


def test_one_cause_whatever_the_value_and_another_for_another_alarm_or_analyzer() -> None:
    def cause(*reasons: Reason, analyzer: str = "c311-1") -> str:
        return cause_of(analyzer, whys_of(Report(Specimen("S")), [decided("K", *reasons)])).key

    assert cause(critical("7.2")) == cause(critical("7.9"))
    assert cause(AUTO_OFF, ALARM) == cause(ALARM)
    assert cause(ALARM) != cause(Reason("alarm", {"alarm": "OTHER"}))
    assert cause(ALARM) != cause(ALARM, analyzer="c311-2")
    assert cause(ALARM) != cause(ALARM, critical("7.2"))


def test_the_tests_missing_from_a_begun_panel_are_those_that_the_analyzer_measures() -> None:
    panels = Panels(tables()[0], lambda analyzer: {"a": ["K", "GLU", "NA"], "b": ["K", "TSH"]}[analyzer])
    assert panels.missing("a", {"K", "NA", "TSH"}) == ("GLU",)
    assert panels.missing("a", {"K"}) == ()  # less than half of it has come: it was hardly asked for
    assert panels.missing("a", {"K", "NA", "GLU"}) == ()
    assert panels.missing("b", {"K"}) == ()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30))
def test_critical_ones_come_first_then_the_oldest(made: list[tuple[bool, int]]) -> None:
    rows = [
        row_of(earlier(decided("K", critical("7") if is_critical else ALARM), at=at, number=number), ZONE)
        for number, (is_critical, at) in enumerate(made)
    ]
    found = [(not row.critical, row.at) for row in sorted(rows, key=lambda row: row.urgency)]
    assert found == sorted(found)


class Laboratory:
    """A store, and what is held in it as the console follows it."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        settings = Settings(Site("L", "Asia/Shanghai"), StoreSettings(url), destinations=(Destination("his", Address("h", 1)),))
        self.store.open()
        self.store.wait_ready(20)
        self.reader = Reader(url)
        self.held, self.figures = Held(settings, lambda: tables()[0]), Figures(self.reader)

    def changed(self, now: float = 0.0) -> bool:
        before = self.held.version
        for news in self.figures.news():
            self.held.take(news.reports, news.messages, news.gone)
        self.held.look(self.reader, now)
        return self.held.version != before

    def listed(self) -> list[Key]:
        return list(self.held.ordered())


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    made = Laboratory(f"sqlite:///{tmp_path}/s.db")
    with contextlib.closing(made.reader):
        yield made
    made.store.close(5)


def add(store: Store, specimen: str, *results: Decided, state: str = "held") -> int:
    def job(tx: Any) -> int:
        report = Report(Specimen(specimen), tuple(Result(one.code) for one in results))
        message = tx.message(direction="in", analyzer="c311-1", link="l", kind="stored", body=b"x")
        known = {"analyzer": "c311-1", "key": specimen, "specimen": specimen, "role": "patient", "state": state}
        number: int = tx.report(message_id=message, digest=b"", content=b"", document=model.encode(report), **known)
        tx.decision(report_id=number, revision=1, actor="rules", document=model.encode(Decision(results)))
        return number

    return store.call(job)


def settle(store: Store, number: int, results: tuple[Decided, ...], state: str) -> None:
    def job(tx: Any) -> None:
        document = model.encode(Decision(results, "anna", kind="release"))
        tx.decision(report_id=number, revision=1, actor="anna", document=document)
        tx.set_report_state(number, state)

    store.call(job)


def test_the_picture_follows_the_store_and_reads_only_what_is_new(laboratory: Laboratory) -> None:
    store, held = laboratory.store, laboratory.held
    first = add(store, "S1", decided("K", ALARM), decided("NA", ALARM, index=1))
    add(store, "S2", decided("K"), state="released")
    assert laboratory.changed()
    assert laboratory.listed() == [("held", first)]
    assert not laboratory.changed()
    second = add(store, "S3", decided("K", critical("7.2")))
    kept = held.rows[first]
    assert laboratory.changed()
    assert laboratory.listed() == [("held", second), ("held", first)]
    assert held.rows[first] is kept
    settle(store, first, (decided("K", action="release"),), "held")
    assert laboratory.changed()
    assert [why.tests for why in held.rows[first].whys] == [("NA",)]
    settle(store, second, (decided("K", action="release"),), "released")
    before = held.rows
    assert laboratory.changed()
    assert list(held.rows) == [first]
    assert second in before, "what a page looks at is not changed under it"
    add(store, "S4", decided("K"), state="released")
    assert not laboratory.changed()


@pytest.mark.parametrize("whole", [0.0, 1e9], ids=["all is looked through", "only what was decided"])
@given(acts=st.lists(st.tuples(st.sampled_from(["add", "release", "look"]), st.integers(0, 5)), max_size=12))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_held_is_what_the_store_holds(tmp_path: Path, whole: float, acts: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as name, pytest.MonkeyPatch.context() as patch:
        laboratory = Laboratory(f"sqlite:///{name}/s.db")
        held: list[int] = []
        try:
            for what, which in [*acts, ("add", 0), ("look", 0), ("add", 0), ("look", 0)]:
                if what == "add":
                    held.append(add(laboratory.store, f"S{len(held)}", decided("K", ALARM)))
                elif what == "release" and held:
                    settle(laboratory.store, held.pop(which % len(held)), (decided("K", action="release"),), "released")
                elif what == "look":
                    laboratory.changed()
                    patch.setattr(figures, "WHOLE_SECONDS", whole)  # the first look is whole always
                    assert sorted(laboratory.held.rows) == sorted(held)
        finally:
            laboratory.reader.close()
            laboratory.store.close(5)


def test_messages_that_nobody_can_read_and_deliveries_that_are_stuck_are_rows_too(laboratory: Laboratory) -> None:
    store, held = laboratory.store, laboratory.held
    number = add(store, "S1", decided("K"), state="released")

    def job(tx: Any) -> tuple[int, int, int]:
        note = model.encode([Reason("no-header")]).decode()
        message = tx.message(direction="in", analyzer="x", link="l", kind="unreadable", body=b"x", note=note, state="open")
        made = {"destination": "his", "lane": "S1", "report_id": number, "decision_id": 1, "payload": b"x"}
        refused = tx.delivery(control_id="1", due=0, **made)
        waiting = tx.delivery(control_id="2", due=0, **made)
        tx.attempt(delivery_id=refused, outcome="refused AE", reply=b"")
        tx.set_delivery_state(refused, "refused")
        return message, refused, waiting

    message, refused, waiting = store.call(job)
    at = store.call(lambda tx: tx.at) / 1e6
    assert laboratory.changed(at)
    assert laboratory.listed() == [("refused", refused), ("message", message)]
    assert held.deliveries[refused].said == "refused AE"
    assert held.rows[-message].opens == f"#{message}"
    assert laboratory.changed(at + 61)
    assert held.deliveries[waiting].what == "waiting"
    assert held.deliveries[waiting].specimen == "S1"
    store.call(lambda tx: tx.set_delivery_state(waiting, "delivered"))
    store.call(lambda tx: tx.set_message_state(message, "settled"))
    add(store, "S4", decided("K"), state="released")
    assert laboratory.changed(at + 65)
    assert laboratory.listed() == [("refused", refused)]
