"""How many deliveries were accepted today: read once, then only what is new, and begun anew at midnight."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep
from zoneinfo import ZoneInfo

import pytest

from labbridge.store import Reader, Store, Transaction
from labbridge.views.waiting import PAGE, Accepted, Figures, picture
from tests.store.support import open_ready, received

ZONE = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 11, 22, 12, tzinfo=ZONE)


class Clock:
    """The time of both, the store and the screen."""

    def __init__(self) -> None:
        self.now = NOON

    def store(self) -> float:
        return self.now.timestamp()

    def screen(self, zone: ZoneInfo) -> datetime:
        return self.now.astimezone(zone)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Store, Reader, Clock]]:
    clock = Clock()
    store = Store(f"sqlite:///{tmp_path}/lab.db", clock=clock.store)
    open_ready(store)
    reader = Reader(f"sqlite:///{tmp_path}/lab.db")
    yield store, reader, clock
    reader.close()
    assert store.close()


def answered(store: Store, outcome: str = "accepted AA") -> None:
    def job(tx: Transaction) -> None:
        tx.attempt(delivery_id=1, outcome=outcome, reply=b"")

    store.call(job)


def test_what_was_delivered_today(place: tuple[Store, Reader, Clock], monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader, clock = place
    store.call(received)
    answered(store)
    clock.now += timedelta(days=1)
    today = Accepted(reader, ZONE, clock.screen)
    assert today.counts() == {}
    for outcome in ("accepted AA", "refused AE", "accepted CA"):
        answered(store, outcome)
    assert today.counts() == {"his": 2}
    asked: list[tuple[int, int]] = []
    accepted = Reader.accepted
    monkeypatch.setattr(Reader, "accepted", lambda self, first, end: asked.append((first, end)) or accepted(self, first, end))
    assert today.counts() == {"his": 2}
    answered(store)
    assert today.counts() == {"his": 3}
    assert [end - first for first, end in asked] == [1], "only what is new is read"
    clock.now += timedelta(days=1)
    assert today.counts() == {}
    answered(store)
    assert today.counts() == {"his": 1}


def test_a_page_of_the_list_is_bounded(place: tuple[Store, Reader, Clock]) -> None:
    store, reader, clock = place
    store.call(lambda tx: [received(tx, "S1") for _ in range(PAGE + 5)])
    store.call(lambda tx: tx.set_delivery_state(1, "refused"))
    accepted = Figures(reader, Accepted(reader, ZONE, clock.screen))
    refused = picture(reader, accepted, "his", "refused", 0)
    assert [(line.delivery.id, line.behind, line.last.outcome if line.last else "") for line in refused.lines] == [
        (1, PAGE + 4, "AA")
    ]
    assert len(picture(reader, accepted, "his", "queued", 0).lines) == PAGE
    assert len(picture(reader, accepted, "his", "queued", PAGE).lines) == 4
    assert picture(reader, accepted, "his", "sent", 0).lines == ()
    assert {state: count for (_, state), (count, _) in refused.counts.items()} == {"queued": PAGE + 4, "refused": 1}


def test_all_pages_share_one_reading_a_second(place: tuple[Store, Reader, Clock], monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader, clock = place
    seconds = [0.0]
    figures = Figures(reader, Accepted(reader, ZONE, clock.screen), lambda: seconds[0])
    assert figures.read() == ({}, {})
    store.call(received)
    answered(store)
    assert figures.read() == ({}, {})
    assert figures.read(fresh=True)[1] == {"his": 1}
    answered(store)
    read = Reader.accepted
    monkeypatch.setattr(Reader, "accepted", lambda *given: (sleep(0.01), read(*given))[1])  # a slow disk
    with ThreadPoolExecutor(8) as pool:
        assert {one[1]["his"] for one in pool.map(lambda _: figures.read(fresh=True), range(50))} == {2}
    answered(store)
    seconds[0] = 1.0
    assert figures.read()[1] == {"his": 3}
