"""The figures of a day: right where there is little, near enough where there is much, and never at the cost of the whole store."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from labbridge.store import Reader, Store, Transaction
from labbridge.store.hours import HOUR, NEIGHBOURS, SAMPLE, Hours
from tests.store.support import open_ready

NOON = 1_795_320_000  # seconds since 1970, a whole hour
DAY = 86_400
RESULTS = b'{"specimen":{},"results":[["K"],["NA"],["CL"]]}'


def arrive(tx: Transaction, analyzer: str = "xn-1", document: bytes = RESULTS) -> None:
    message = tx.message(direction="in", analyzer=analyzer, link="", kind="stored", control_id="", body=b"x")
    common: dict[str, Any] = {"key": "S", "specimen": "S", "patient": "", "role": "patient", "state": "released"}
    digests = {"digest": b"d" * 32, "content": b"c" * 32}
    report = tx.report(message_id=message, analyzer=analyzer, document=document, **common, **digests)
    delivery = tx.delivery(destination="his", lane="S", report_id=report, decision_id=1, control_id="C", payload=b"P")
    tx.attempt(delivery_id=delivery, outcome="accepted AA", reply=b"")
    tx.attempt(delivery_id=delivery, outcome="refused AE", reply=b"")


@contextmanager
def stored(url: str, arrivals: Sequence[tuple[float, str, int]]) -> Iterator[Hours]:
    """Figures of a store in which at each of these times so many messages came from an analyzer."""
    now = [0.0]
    with closing(Store(url, clock=lambda: now[0])) as store:
        open_ready(store)
        for at, analyzer, number in arrivals:
            now[0] = at

            def job(tx: Transaction, analyzer: str = analyzer, number: int = number) -> None:
                for _ in range(number):
                    arrive(tx, analyzer)

            store.call(job)
    with closing(Reader(url)) as reader:
        yield Hours(reader)


def test_results_and_deliveries_of_each_hour(store_url: str) -> None:
    arrivals = [(NOON - 25 * 3600, "xn-1", 9), (NOON - 3600, "xn-1", 2), (NOON - 1, "bc-1", 1), (NOON + 60, "xn-1", 4)]
    with stored(store_url, arrivals) as hours:
        hours.refresh((NOON + 120) * 1_000_000)
        assert hours.results == {"xn-1": [0] * 22 + [6, 12], "bc-1": [0] * 22 + [3, 0]}
        assert hours.delivered == {"his": [0] * 22 + [3, 4]}
        assert hours.last["bc-1"] == (NOON - 1) * 1_000_000
        hours.refresh((NOON + 3700) * 1_000_000)
        assert hours.results["xn-1"] == [0] * 21 + [6, 12, 0]


def test_an_empty_store_has_no_figures(store_url: str) -> None:
    with stored(store_url, []) as hours:
        hours.refresh(NOON * 1_000_000)
        assert (hours.results, hours.delivered, hours.last, hours.usual(NOON * 1_000_000)) == ({}, {}, {}, {})


def test_of_a_busy_hour_a_part_stands_for_all(new_url: str) -> None:
    with stored(new_url, [(NOON, "xn-1", SAMPLE), (NOON + 60, "bc-1", SAMPLE), (NOON + 90, "xn-1", SAMPLE)]) as hours:
        hours.refresh((NOON + 120) * 1_000_000)
        exact = {"xn-1": 2 * 3 * SAMPLE, "bc-1": 3 * SAMPLE}
        assert hours.results.keys() == exact.keys()
        for name, number in exact.items():
            assert abs(hours.results[name][-1] - number) <= 0.02 * number


def test_the_usual_silence_is_that_of_the_same_hour_on_the_days_before(store_url: str) -> None:
    arrivals = []
    for day, gap in ((3, 60), (2, 120), (1, 300)):
        for turn in range(3):
            arrivals.append((NOON - day * DAY + turn * gap, "xn-1", 1))
    arrivals.append((NOON - DAY + 7 * 3600, "xn-1", 1))
    with stored(store_url, sorted(arrivals)) as hours:
        assert hours.usual(NOON * 1_000_000) == {"xn-1": 120.0}
        assert hours.usual((NOON + 6 * 3600) * 1_000_000) == {}


def test_what_is_read_does_not_grow_with_the_store(new_url: str, monkeypatch: Any) -> None:
    """Conditions and bounds, not seconds: every statement names a span of ids, a list of them, or one row."""
    read: list[int] = []
    with stored(new_url, [(NOON - 60 * day, "xn-1", 300) for day in range(30, 0, -1)]) as hours:
        stream = hours._reader.stream

        def counting(statement: str, *parameters: Any) -> Any:
            rows = list(stream(statement, *parameters))
            read.append(len(rows))
            return iter(rows)

        monkeypatch.setattr(hours._reader, "stream", counting)
        hours.refresh(NOON * 1_000_000 + HOUR // 2)
    assert max(read) <= NEIGHBOURS
    assert sum(read) < NEIGHBOURS + 4 * SAMPLE + 24 * 2 * 2 * 16
