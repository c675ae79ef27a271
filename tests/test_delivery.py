"""The queue's senders: order, one in flight per lane, retries of the same bytes, what an answer means, nothing lost."""

import copy
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet import task

from labbridge import delivery
from labbridge.delivery import PATIENCE_S, Courier, Outbox
from labbridge.lanes import Policy, Queued
from labbridge.metrics import Metrics
from labbridge.wire.events import Answer, Received, Sent

START = 1_795_000_000.0
FINAL = ("delivered", "cancelled", "superseded")


class Row(msgspec.Struct):
    """One delivery in the store."""

    lane: str
    payload: bytes
    state: str = "queued"
    attempts: list[str] = []


class FakeStore:
    """The store as delivery sees it: jobs run when the test says so, perhaps twice, and may fail."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.rows: dict[int, Row] = {}
        self.at_once = at_once
        self.patience = 0.0  # of the last job
        self.jobs: deque[tuple[Callable[[Any], Any], Callable[[Any], None], Callable[[Exception], None]]] = deque()

    def submit(
        self, job: Callable[[Any], Any], done: Callable[[Any], None], failed: Callable[[Exception], None], patience: float = 0.0
    ) -> None:
        self.jobs.append((job, done, failed))
        self.patience = patience
        if self.at_once:
            self.run()

    def run(self, *, fails: bool = False) -> None:
        """The oldest job: rolled back once before it is committed, or not at all."""
        job, done, failed = self.jobs.popleft()
        before = copy.deepcopy(self.rows)
        job(self)
        self.rows = before
        if fails:
            failed(OSError("disk"))
        else:
            done(job(self))

    # what a transaction offers

    def attempt(self, *, delivery_id: int, outcome: str, reply: bytes) -> None:
        self.rows[delivery_id].attempts = [*self.rows[delivery_id].attempts, outcome]

    def set_delivery_state(self, number: int, state: str) -> None:
        self.rows[number].state = state

    def find_delivery(self, number: int) -> Row:
        return self.rows[number]

    def payloads(self, numbers: list[int]) -> dict[int, bytes]:
        return {number: self.rows[number].payload for number in numbers}


class Link:
    """A connection to the hospital: remembers what was sent; ``drop`` loses it."""

    def __init__(self, courier: Courier, sent: Callable[[int, bytes], None]) -> None:
        self.courier, self._sent = courier, sent
        self.open = True
        self.settled: list[int] = []

    def settle(self, token: int, answer: Answer) -> None:
        assert answer == Answer(True)
        self.settled.append(token)

    def send(self, token: int, payload: bytes) -> None:
        assert self.open
        self._sent(token, payload)

    def drop(self, why: str) -> None:
        if self.open:
            self.open = False
            self.courier.closed(self, why)


class Hospital:
    """An outbox with its store, clock and links."""

    def __init__(self, *, connections: int = 2, at_once: bool = True, **policy: Any) -> None:
        self.store = FakeStore(at_once=at_once)
        self.clock = task.Clock()
        self.sent: list[tuple[int, bytes]] = []
        self.watch: Callable[[int, bytes], None] = lambda number, payload: None
        store: Any = self.store
        self.outbox = Outbox(
            "his", connections, Policy(**policy), store, Metrics(), self.clock, lambda: START + self.clock.seconds()
        )
        self.couriers = self.outbox.couriers

    def add(self, number: int, lane: str = "S1", *, kept: bool = True, due: float = 0.0, refused: bool = False) -> None:
        """One delivery; ``kept`` in memory with its payload, ``due`` in so many seconds."""
        payload = b"MSH|payload of %d" % number
        self.store.rows[number] = Row(lane, payload, "refused" if refused else "queued")
        at, then = (int((START + self.clock.seconds() + wait) * 1e6) for wait in (0.0, due))
        queued = Queued(number, "his", lane, f"ID{number}", at, payload if kept else None, then if due else 0, refused)
        self.outbox.add(queued)
        self.outbox.pump()

    def send(self, number: int, payload: bytes) -> None:
        """What a link is given to send."""
        self.watch(number, payload)
        self.sent.append((number, payload))

    def connect(self, index: int = 0) -> Link:
        courier = self.couriers[index]
        link = Link(courier, self.send)
        courier.opened(link)
        return link

    def answer(self, index: int, code: str, *, errors: str = "", control_id: str = "") -> None:
        courier = self.couriers[index]
        about = control_id or (courier.carrying.control_id if courier.carrying else "none")
        courier.event(courier.link, Received(1, acknowledgement(code, about, errors)))

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.sent]

    def states(self) -> dict[int, str]:
        return {number: row.state for number, row in self.store.rows.items()}


def acknowledgement(code: str, control_id: str, errors: str = "") -> bytes:
    err = f"ERR|||{errors}|E\r" if errors else ""
    return f"MSH|^~\\&|H||||20261121||ACK|9|P|2.5.1\rMSA|{code}|{control_id}\r{err}".encode()


# -- one after the other ---------------------------------------------------------------------------------------------


def test_a_lane_keeps_its_order_and_lanes_go_side_by_side() -> None:
    his = Hospital()
    for number, lane in ((1, "S1"), (2, "S1"), (3, "S2"), (4, "S2"), (5, "S3")):
        his.add(number, lane)
    his.connect(0)
    his.connect(1)
    assert his.numbers == [1, 3]
    his.answer(1, "AA")
    assert his.numbers == [1, 3, 5]
    his.answer(0, "AA")
    assert his.numbers == [1, 3, 5, 4]
    assert (his.outbox.depth, his.outbox.delivered, his.outbox.connections) == (3, 2, 2)


def test_the_next_of_a_lane_leaves_only_when_the_answer_to_the_last_is_durable() -> None:
    his = Hospital(at_once=False)
    his.add(1)
    his.add(2)
    his.connect()
    his.answer(0, "AA")
    assert his.numbers == [1]
    assert not his.outbox.idle
    his.store.run(fails=True)
    his.clock.advance(1.0)
    assert his.numbers == [1]
    his.store.run()
    assert his.numbers == [1, 2]
    assert his.store.rows[1].attempts == ["accepted AA"]


def test_an_answer_that_nothing_waits_for_may_share_a_commit() -> None:
    his = Hospital(at_once=False)
    his.add(1, "S1")
    his.add(2, "S2")
    his.add(3, "S2")
    his.connect(0)
    his.connect(1)
    his.answer(0, "AA")
    assert (his.store.patience, len(his.store.jobs)) == (PATIENCE_S, 1)
    his.answer(1, "AA")  # 3 waits for this one: what is under way need not be patient any more
    assert (his.store.patience, len(his.store.jobs)) == (0.0, 2)
    his.store.run()
    assert (his.store.patience, len(his.store.jobs)) == (0.0, 2)
    his.store.run()
    his.store.run()
    assert his.store.rows[2].state == "delivered"


def test_a_lost_connection_and_silence_send_the_same_bytes_again_and_count_nothing() -> None:
    his = Hospital(connections=1, timeout=30.0)
    his.add(1)
    his.connect().drop("reset by the hospital")
    link = his.connect()
    his.clock.advance(30.0)  # no answer
    assert not link.open
    his.connect()
    assert len(his.sent) == 3
    assert len(set(his.sent)) == 1
    assert (his.store.rows[1].attempts, his.outbox.items[1].tries) == ([], 0)
    his.answer(0, "AA")
    assert his.states() == {1: "delivered"}
    his.clock.advance(31.0)
    assert his.clock.getDelayedCalls() == []


def test_a_message_that_the_other_side_cannot_stand_does_not_keep_the_others_back() -> None:
    his = Hospital(connections=1)
    his.add(1, "S1")
    his.add(2, "S2")
    his.connect().drop("closed while it read")
    his.connect()
    assert his.numbers == [1, 2]


def test_what_is_not_due_waits_and_so_does_its_lane() -> None:
    his = Hospital()
    his.add(1, due=60.0)
    his.add(2)
    his.add(3, "S2")
    his.connect()
    his.answer(0, "AA")
    assert his.numbers == [3]
    his.clock.advance(60.0)
    assert his.numbers == [3, 1]


def test_what_waits_behind_something_withdrawn_leaves_at_once() -> None:
    his = Hospital()
    his.add(1, due=1800.0)
    his.add(2)
    his.connect()
    his.outbox.remove(1)
    assert his.numbers == [2]
    assert his.outbox.oldest() == 0.0
    his.clock.advance(3600.0)
    assert his.outbox.oldest() == pytest.approx(3600.0, abs=0.01)


def test_what_stands_behind_something_withdrawn_is_not_sent_when_it_is_withdrawn_too() -> None:
    his = Hospital(tries=1)
    his.add(1)
    his.add(2)
    his.add(3)
    his.connect()
    his.answer(0, "AE")
    assert his.outbox.refused == 1
    his.outbox.remove(1, 2)
    assert his.numbers == [1, 3]


def test_withdrawing_what_waits_in_the_middle_or_is_alone_leaves_nothing_behind() -> None:
    his = Hospital()
    for number in (1, 2, 3):
        his.add(number)
    his.add(4, "S2", due=60.0)
    his.outbox.remove(2)
    his.outbox.remove(4)
    his.outbox.remove(99)
    his.connect()
    his.answer(0, "AA")
    his.answer(0, "AA")
    his.clock.advance(60.0)
    assert (his.numbers, list(his.outbox.lanes)) == ([1, 3], [])


def test_what_is_withdrawn_in_flight_is_left_to_its_answer_and_not_sent_again() -> None:
    his = Hospital(connections=1)
    his.add(1)
    his.add(2)
    link = his.connect()
    his.store.rows[1].state = "cancelled"
    his.outbox.remove(1)
    assert his.outbox.depth == 2
    link.drop("gone")
    his.connect()
    assert his.numbers == [1, 2]


@pytest.mark.parametrize(("code", "state"), [("AA", "delivered"), ("AE", "cancelled"), ("AR", "cancelled")])
def test_what_is_withdrawn_while_its_answer_is_stored_never_takes_the_next_with_it(code: str, state: str) -> None:
    his = Hospital(at_once=False, tries=1, ar="refuse")
    his.add(1)
    his.add(2)
    his.connect()
    his.answer(0, code)
    his.store.rows[1].state = "cancelled"
    his.outbox.remove(1)
    his.store.run()
    assert his.numbers == [1, 2]
    assert his.states() == {1: state, 2: "queued"}


# -- what was withdrawn and arrived all the same ---------------------------------------------------------------------


class Following(Hospital):
    """A hospital that is told more when something has arrived that was withdrawn: delivery 9 for the same lane."""

    def __init__(self, **options: Any) -> None:
        super().__init__(connections=1, **options)
        self.followed: list[int] = []
        self.outbox.late = self.late

    def late(self, tx: Any, number: int) -> list[Queued]:
        self.followed.append(number)
        self.store.rows[9] = Row("S1", b"MSH|withdrawn")
        return [Queued(9, "his", "S1", "ID9", 0, b"MSH|withdrawn")]

    def withdraw(self, number: int) -> None:
        self.store.rows[number].state = "cancelled"
        self.outbox.remove(number)


def test_what_was_refused_after_a_try_without_an_answer_may_have_arrived() -> None:
    """The hospital took it the first time, and says of the repeat that it has it already."""
    his = Following(tries=1)
    his.add(1)
    his.connect().drop("gone")
    his.connect()
    his.answer(0, "AE")
    assert his.outbox.refused == 1
    his.withdraw(1)
    assert set(his.followed) == {1}


def test_what_arrived_though_it_was_withdrawn_is_followed_by_what_undoes_it() -> None:
    his = Following()
    his.add(1)
    his.connect()
    his.withdraw(1)
    assert his.followed == []
    his.answer(0, "AA")
    assert set(his.followed) == {1}
    assert (his.numbers, his.states()) == ([1, 9], {1: "delivered", 9: "queued"})


def test_an_answer_that_is_stored_with_what_withdraws_it_is_followed_too() -> None:
    his = Following(at_once=False)
    his.add(1)
    his.connect()
    his.answer(0, "AA")
    his.outbox.gone.add(1)  # by the job before, of the same transaction
    his.store.run()
    assert his.numbers == [1, 9]


@pytest.mark.parametrize("when", ["in flight", "afterwards"])
def test_what_was_sent_and_never_answered_may_have_arrived(when: str) -> None:
    his = Following()
    his.add(1)
    link = his.connect()
    if when == "in flight":
        his.withdraw(1)
    link.drop("reset by the hospital")
    if when == "afterwards":
        his.withdraw(1)
    assert set(his.followed) == {1}
    his.connect()
    assert his.numbers == [1, 9]


def test_what_was_never_sent_or_was_refused_is_followed_by_nothing() -> None:
    his = Following(tries=1)
    his.add(1)
    his.withdraw(1)
    his.add(2, "S2")
    his.connect()
    his.answer(0, "AR")  # to be tried again
    his.withdraw(2)
    his.add(3, "S3")
    his.answer(0, "AE")
    his.withdraw(3)
    assert his.followed == []


def test_what_undoes_it_is_not_given_up_when_the_disk_fails() -> None:
    his = Following(at_once=False)
    his.add(1)
    his.connect().drop("reset by the hospital")
    his.withdraw(1)
    his.store.run(fails=True)
    his.clock.advance(1.0)
    his.store.run()
    his.connect()
    assert his.numbers == [1, 9]


# -- what an answer means --------------------------------------------------------------------------------------------


def test_an_error_is_final_after_its_tries_and_only_if_the_destination_accepts_others() -> None:
    """DESIGN 4.6: an AE counts only if the destination accepted something else since."""
    his = Hospital(connections=1, tries=2)
    his.add(1, "S1")
    his.connect()
    for _ in range(5):
        his.answer(0, "AE")
        his.clock.advance(60.0)
    assert his.states() == {1: "queued"}
    his.add(2, "S2")
    his.answer(0, "AE")
    his.answer(0, "AA")  # of 2
    his.clock.advance(60.0)
    his.answer(0, "AE")
    assert his.states() == {1: "refused", 2: "delivered"}
    assert his.store.rows[1].attempts == ["again AE"] * 6 + ["refused AE"]
    assert his.outbox.refused == 1


@pytest.mark.parametrize(
    ("policy", "code", "errors", "state"),
    [
        ({}, "AR", "", "queued"),
        ({}, "CR", "207", "queued"),
        ({}, "AR", "200^Unsupported message type^HL70357", "refused"),
        ({}, "AR", "203", "refused"),
        ({"ar": "refuse"}, "AR", "", "refused"),
        ({"tries": 1}, "AE", "", "refused"),
        ({"tries": 1, "ae": "retry"}, "AE", "", "queued"),
        ({"tries": 1}, "CE", "", "refused"),
        ({}, "CA", "", "delivered"),
    ],
)
def test_an_answer_means_what_the_configuration_says(policy: dict[str, Any], code: str, errors: str, state: str) -> None:
    his = Hospital(**policy)
    his.add(1)
    his.connect()
    his.answer(0, code, errors=errors)
    assert his.states() == {1: state}


def test_the_pauses_between_tries_grow_to_a_limit() -> None:
    his = Hospital(ae="retry", first_wait=1.0, longest_wait=8.0)
    his.add(1)
    his.connect()
    waits = []
    for _ in range(6):
        his.answer(0, "AE")
        before, began = len(his.sent), his.clock.seconds()
        while len(his.sent) == before:
            his.clock.advance(0.05)
        waits.append(his.clock.seconds() - began)
    assert 0.79 <= waits[0] <= 1.06
    assert all(6.39 <= wait <= 8.06 for wait in waits[4:])


def test_what_keeps_it_from_delivering_and_when_it_tries_again() -> None:
    """Codes alone are told: what a hospital writes beside them may name a patient."""
    his = Hospital(connections=1, ar="retry", first_wait=2.0)
    his.add(1)
    his.add(2, "S2", due=3600.0)
    his.connect()
    his.answer(0, "AR", errors="DOE 19800101")
    assert (his.outbox.trouble, his.outbox.retrying) == ("AR", 1)
    assert 1.5 <= his.outbox.next_try() <= 2.0
    his.clock.advance(1.0)
    assert 0.5 <= his.outbox.next_try() <= 1.0
    his.clock.advance(1.1)
    his.answer(0, "AR", errors="207")
    assert his.outbox.trouble == "AR 207"
    his.outbox.again(1)
    assert (his.outbox.retrying, his.outbox.next_try()) == (0, 0.0)
    his.answer(0, "AA")
    assert (his.outbox.trouble, his.outbox.retrying, his.outbox.depth) == ("", 0, 1)


def test_an_answer_that_belongs_to_nothing_in_flight_settles_nothing() -> None:
    """A late answer, a wrong id, no answer at all, another event: # conformance: C20."""
    his = Hospital(connections=1)
    his.add(1)
    old = his.connect()
    his.answer(0, "AA", control_id="ID7")
    courier = his.couriers[0]
    courier.event(old, Received(1, b"no acknowledgement"))
    courier.event(old, Received(1, acknowledgement("??", "ID1")))
    courier.event(old, Sent(1))
    old.drop("gone")
    courier.event(old, Received(1, acknowledgement("AA", "ID1")))
    courier.closed(old, "told twice")
    assert his.states() == {1: "queued"}
    his.connect()
    his.answer(0, "AA")
    his.answer(0, "AA", control_id="ID1")
    assert his.store.rows[1].attempts == ["accepted AA"]


def test_many_refusals_in_a_row_pause_the_destination() -> None:
    his = Hospital(connections=1, ar="refuse", pause_after=2)
    for number in (1, 2, 3):
        his.add(number, f"S{number}")
    his.connect()
    his.answer(0, "AR")
    his.answer(0, "AR")
    assert (his.outbox.paused, his.numbers) == (True, [1, 2])
    his.outbox.pause(False)
    assert his.numbers == [1, 2, 3]
    his.answer(0, "AR")
    assert not his.outbox.paused


def test_a_refused_head_blocks_its_lane_until_it_is_retried_or_cancelled() -> None:
    his = Hospital(connections=1, ar="refuse")
    his.add(1, refused=True)  # as it was left by an earlier run
    his.add(2)
    his.connect()
    assert his.numbers == []
    his.outbox.again(1)
    his.answer(0, "AR")
    assert (his.numbers, his.outbox.refused) == ([1], 1)
    his.outbox.remove(1)
    assert (his.numbers, his.outbox.refused) == ([1, 2], 0)
    his.outbox.again(99)


def test_what_is_retried_by_hand_counts_its_tries_anew() -> None:
    his = Hospital(connections=1, tries=1)
    his.add(1)
    his.connect()
    his.answer(0, "AE")
    his.store.rows[1].state = "queued"
    his.outbox.again(1)
    his.answer(0, "AA")
    assert his.states() == {1: "delivered"}


# -- payloads --------------------------------------------------------------------------------------------------------


def test_payloads_that_memory_does_not_keep_are_read_when_their_turn_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "CACHE_BYTES", 40)
    his = Hospital(at_once=False)
    for number in range(1, 6):
        his.add(number, f"S{number}")
    his.add(6, "S6", kept=False)
    assert [one.payload is None for one in his.outbox.items.values()] == [False, False, True, True, True, True]
    his.connect(0)
    his.connect(1)
    his.answer(0, "AA")
    his.answer(1, "AA")
    his.outbox.remove(3)
    while his.store.jobs:
        his.store.run()
    assert his.numbers[:2] == [1, 2]
    assert len(his.numbers) == 4
    assert all(payload == his.store.rows[number].payload for number, payload in his.sent)


def test_a_payload_that_cannot_be_read_is_asked_for_again() -> None:
    his = Hospital(at_once=False)
    his.add(1, kept=False)
    his.connect()
    his.store.run(fails=True)
    assert not his.store.jobs
    his.clock.advance(1.0)
    his.store.run()
    assert his.numbers == [1]


def test_nothing_is_sent_while_it_is_paused_or_stops() -> None:
    his = Hospital()
    his.outbox.pause(True)
    his.add(1)
    his.connect()
    assert his.numbers == []
    his.outbox.stopping = True
    his.outbox.pause(False)
    assert his.numbers == []
    assert his.outbox.idle


# -- everything at once ----------------------------------------------------------------------------------------------


class Deliveries(RuleBasedStateMachine):
    """Any order of arrivals, answers, losses, pauses and commands, with a store that is slow and fails."""

    def __init__(self) -> None:
        super().__init__()
        self.his = Hospital(at_once=False, tries=2, pause_after=3, timeout=30.0, longest_wait=4.0)
        self.lanes: dict[str, list[int]] = {}
        self.answered: Counter[int] = Counter()
        self.counted: dict[int, tuple[int, int]] = {}  # tries that count, and the mark of the last
        self.accepted = 0
        self.refused: set[int] = set()
        self.his.watch = self._sent

    def _sent(self, number: int, payload: bytes) -> None:
        """What leaves is queued in the store, byte for byte, and all before it in its lane is settled for good."""
        row = self.his.store.rows[number]
        assert (row.state, row.payload) == ("queued", payload)
        lane = self.lanes[row.lane]
        assert all(self.his.store.rows[before].state in FINAL for before in lane[: lane.index(number)])
        assert not self.his.outbox.paused

    @initialize()
    def begin(self) -> None:
        self.connect(0)

    @rule(lane=st.sampled_from("ABC"), kept=st.booleans(), due=st.sampled_from([0.0, 0.0, 5.0]))
    def add(self, lane: str, kept: bool, due: float) -> None:
        number = len(self.his.store.rows) + 1
        self.lanes.setdefault(lane, []).append(number)
        self.his.add(number, lane, kept=kept, due=due)

    @rule(index=st.integers(0, 1))
    def connect(self, index: int) -> None:
        if self.his.couriers[index].link is None:
            self.his.connect(index)

    @rule(index=st.integers(0, 1))
    def close(self, index: int) -> None:
        if self.his.couriers[index].link is not None:
            self.his.couriers[index].link.drop("closed")

    @rule(index=st.integers(0, 1), code=st.sampled_from(["AA", "AA", "AA", "AE", "AE", "AR", "AR200"]))
    def answer(self, index: int, code: str) -> None:
        carrying = self.his.couriers[index].carrying
        if carrying is None:
            return
        self._judge(carrying.id, code)
        self.his.answer(index, code[:2], errors=code[2:])

    def _judge(self, number: int, code: str) -> None:
        """The policy, told again."""
        self.answered[number] += 1
        if code == "AA":
            self.accepted += 1
        elif code == "AE":
            tries, mark = self.counted.get(number, (0, -1))
            tries += mark < self.accepted
            self.counted[number] = tries, self.accepted
            if tries >= 2:
                self.refused.add(number)
        elif code == "AR200":
            self.refused.add(number)

    @rule(index=st.integers(0, 1), wrong=st.sampled_from(["ID1", "ID2", "other", ""]), code=st.sampled_from(["AA", "AE"]))
    def late_or_wrong_answer(self, index: int, wrong: str, code: str) -> None:
        courier = self.his.couriers[index]
        if courier.link is not None and (courier.carrying is None or courier.carrying.control_id != wrong):
            courier.event(courier.link, Received(1, acknowledgement(code, wrong)))

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.his.clock.advance(seconds)

    @precondition(lambda self: self.his.store.jobs)
    @rule(fails=st.sampled_from([False, False, True]))
    def the_store_works(self, fails: bool) -> None:
        self.his.store.run(fails=fails)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.his.outbox.pause(paused)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = [number for number, row in self.his.store.rows.items() if row.state in ("queued", "refused")]
        if waiting:
            number = data.draw(st.sampled_from(waiting))
            self.his.store.rows[number].state = "cancelled"
            self.his.outbox.remove(number)

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        refused = [number for number, row in self.his.store.rows.items() if row.state == "refused"]
        if refused:
            self._retry(data.draw(st.sampled_from(refused)))

    def _retry(self, number: int) -> None:
        self.his.store.rows[number].state = "queued"
        self.counted.pop(number, None)
        self.refused.discard(number)
        self.his.outbox.again(number)

    @invariant()
    def a_lane_has_one_message_in_flight(self) -> None:
        lanes = [courier.carrying.lane for courier in self.his.couriers if courier.carrying]
        assert len(lanes) == len(set(lanes))

    @invariant()
    def nothing_is_lost(self) -> None:
        for number, row in self.his.store.rows.items():
            assert row.state in FINAL or number in self.his.outbox.items

    @invariant()
    def an_attempt_is_an_answer(self) -> None:
        for number, row in self.his.store.rows.items():
            assert len(row.attempts) <= self.answered[number]

    @invariant()
    def what_people_see_is_what_there_is(self) -> None:
        outbox = self.his.outbox
        assert outbox.refused == sum(1 for one in outbox.items.values() if one.refused)
        assert outbox._timed == {lane for lane in outbox.lanes.values() if lane.timer is not None}
        assert outbox.retrying <= len(outbox._timed)

    @invariant()
    def it_is_refused_only_as_the_policy_says(self) -> None:
        for number, row in self.his.store.rows.items():
            assert row.state != "refused" or number in self.refused

    def teardown(self) -> None:
        """With the hospital and the store well again, everything arrives."""
        self.his.outbox.pause(False)
        for _ in range(60 + 10 * len(self.his.store.rows)):
            if self.his.outbox.depth == 0 and not self.his.store.jobs:
                break
            for index in (0, 1):
                self.connect(index)
                self.answer(index, "AA")
            while self.his.store.jobs:
                self.his.store.run()
            for number in [number for number, row in self.his.store.rows.items() if row.state == "refused"]:
                self._retry(number)
            self.his.outbox.pause(False)
            self.his.clock.advance(6.0)
        assert {row.state for row in self.his.store.rows.values()} <= {"delivered", "cancelled"}
        assert (self.his.outbox.lanes, self.his.outbox._cached, self.his.outbox.idle) == ({}, 0, True)
        assert all(len(row.attempts) == self.answered[number] for number, row in self.his.store.rows.items())
        self.his.clock.advance(31.0)
        self.his.clock.advance(31.0)
        assert self.his.clock.getDelayedCalls() == []


Deliveries.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDeliveries = Deliveries.TestCase


def test_silence_is_noticed_on_every_connection_in_time() -> None:
    """The connection that takes over a message after a time-out does not put off the others' deadlines."""
    his = Hospital(connections=3, timeout=30.0)
    his.add(1, "S1")
    his.connect(0)
    his.clock.advance(10.0)
    his.add(2, "S2")
    second = his.connect(1)
    his.connect(2)
    his.clock.advance(20.0)  # the first is dropped, the third takes its message over
    assert his.numbers == [1, 2, 1]
    his.clock.advance(10.0)
    assert not second.open
