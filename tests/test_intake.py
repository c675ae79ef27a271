"""Intake: batches, links in turn, backpressure, what is stored and answered, what failure costs. On real stores."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from labbridge import commands, model, pipeline
from labbridge import intake as rooms
from labbridge.batch import Item, bytes_of, files_of
from labbridge.commands import Request
from labbridge.intake import Intake
from labbridge.lanes import Queued
from labbridge.metrics import Metrics
from labbridge.model import Reason, RemoteProtocolError
from labbridge.pipeline import AnalyzerRules
from labbridge.store import Reader, Store, StoreUnavailable, Transaction
from labbridge.wire.events import Abandoned, Answer, Event, Failed, Left, Note, Overdue, Oversize, Part, Place, Received, Stray

from .small_lab import NOW, analyzer, moment, observations, revision
from .store.support import open_ready

HL7 = msgspec.structs.replace(analyzer(), name="hl7")
ASTM = msgspec.structs.replace(analyzer(profile="generic-astm"), name="astm")
H, P, L = b"H|\\^&|||a\r", b"P|1\r", b"L|1|N\r"


def oru(*specimens: str, value: str = "4.1", number: str = "1", kind: str = "ORU^R01") -> bytes:
    """A message with one potassium of each specimen."""
    lines = [f"MSH|^~\\&|A|B|||20261121101500||{kind}|{number}|P|2.3.1", "PID|1||P1||DOE"]
    for specimen in specimens:
        lines += [f"OBR|1||{specimen}", f"OBX|1|NM|K||{value}|mmol/L|||||F|||20261121101000"]
    return ("\r".join(lines) + "\r").encode()


def records(specimen: str = "S1", value: str = "4.1") -> list[bytes]:
    """The same in ASTM, a record a frame."""
    return [H, P, b"O|1|%s||^^^K\r" % specimen.encode(), b"R|1|^^^K|%s|mmol/L||N||F||||20261121101000\r" % value.encode(), L]


class Link:
    """A link that remembers what it was told."""

    peer = "10.0.0.7:1"
    repeats = True

    def __init__(self) -> None:
        self.settled: list[tuple[int, Answer]] = []
        self.sent: list[bytes] = []
        self.said: list[str] = []

    def settle(self, token: int, answer: Answer) -> None:
        self.settled.append((token, answer))

    def send(self, token: int, payload: bytes) -> None:
        self.sent.append(payload)

    def hold(self) -> None:
        self.said.append("hold")

    def unhold(self) -> None:
        self.said.append("unhold")

    @property
    def codes(self) -> list[str]:
        """MSA-1 of each answer; ACK or NAK where there is no message."""
        replies = [b"".join(answer.replies) for _, answer in self.settled]
        return [
            reply.split(b"MSA|")[1][:2].decode() if reply else "ACK" if answer.accepted else "NAK"
            for reply, (_, answer) in zip(replies, self.settled, strict=True)
        ]


class Road:
    """Intake over a real store; the test is the reactor."""

    def __init__(self, url: str) -> None:
        self.now = NOW
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.store = Store(url, clock=lambda: self.now, wake=self.calls.put)
        open_ready(self.store)
        self.reader = Reader(url)
        self.down = False
        self.queued: list[Queued] = []
        compiled = revision(HL7)
        self.revision = msgspec.structs.replace(compiled, analyzers={"hl7": HL7, "astm": ASTM, "astm-2": self._named("astm-2")})
        store: Any = self
        self.intake: Any = Intake(store, self.revision, self.queued.extend, Metrics(), lambda: self.now)
        self.intake.accepting = True
        self.token = 0

    def _named(self, name: str) -> AnalyzerRules:
        return msgspec.structs.replace(ASTM, name=name)

    def submit(self, job: Any, done: Any, failed: Any) -> None:
        """The store, unless it is down."""
        if self.down:
            failed(StoreUnavailable("down"))
        else:
            self.store.submit(job, done, failed)

    def link(self, name: str = "hl7") -> Link:
        link = Link()
        self.intake.opened(name, link)
        return link

    def event(self, link: Link, event: Event) -> None:
        self.intake.event(link, event)

    def post(self, link: Link, payload: bytes) -> int:
        """A whole message arrives."""
        self.token += 1
        self.event(link, Received(self.token, payload))
        return self.token

    def frames(self, link: Link, frames: list[bytes]) -> None:
        """Frames that do not end their message arrive, each after the answer to the last."""
        for frame in frames:
            self.token += 1
            self.event(link, Part(self.token, frame))
            self.turn()

    def turn(self) -> None:
        """The reactor runs until intake is idle."""
        while not self.intake.idle:
            self.calls.get(timeout=60)()
        while True:
            try:
                self.calls.get_nowait()()
            except Empty:
                return

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The writer commits something else meanwhile."""
        go = threading.Event()
        self.store.submit(lambda tx: go.wait(60), lambda _: None, lambda _: None)
        try:
            yield
        finally:
            go.set()

    def ask(self, job: Callable[[Transaction], Any]) -> Any:
        """What a job of its own says."""
        answers: list[Any] = []
        self.store.submit(job, answers.append, answers.append)
        while not answers:
            self.calls.get(timeout=60)()
        return answers[0]

    def rows(self, query: str) -> list[Any]:
        """What is in the database now."""
        with self.reader.snapshot() as snapshot:
            return [row[0] if len(row) == 1 else tuple(row) for row in snapshot.exec_driver_sql(query)]

    def kinds(self) -> list[tuple[str, str, bytes]]:
        """Kind, state and body of every message in the journal."""
        return self.rows("select kind, state, body from message order by id")

    def reports(self) -> list[tuple[str, str]]:
        """Specimen and state of every report."""
        return self.rows("select specimen, state from report order by id")

    def spool(self) -> list[bytes]:
        """The parts of each transmission that is not whole."""
        sessions: dict[str, bytes] = {}
        for session, body in self.rows("select session, body from spool order by id"):
            sessions[session] = sessions.get(session, b"") + body
        return list(sessions.values())


@pytest.fixture
def road(store_url: str) -> Iterator[Road]:
    one = Road(store_url)
    yield one
    one.reader.close()
    assert one.store.close()


# -- stored, then acknowledged ---------------------------------------------------------------------------------------


def test_a_message_is_acknowledged_once_it_is_stored_decided_and_queued(road: Road) -> None:
    link = road.link()
    with road.busy():
        road.post(link, oru("S1", number="{GUID-1}"))
        assert link.settled == []
        assert road.queued == []
    road.turn()
    ((_, answer),) = link.settled
    assert answer.accepted
    assert b"MSA|AA|{GUID-1}\r" in answer.replies[0]
    assert road.reports() == [("S1", "released")]
    assert [(one.destination, one.lane, observations(one.payload or b"")) for one in road.queued] == [
        ("his", "S1", [("K", "4.10", "F")])
    ]
    stored = road.rows("select id, control_id, payload from delivery")
    assert stored == [(one.id, one.control_id, one.payload) for one in road.queued]


def test_frames_are_answered_once_they_are_spooled_and_the_last_empties_the_spool(road: Road) -> None:
    """# conformance: A25."""
    link = road.link("astm")
    whole = records()
    road.frames(link, whole[:-1])
    assert road.spool() == [b"".join(whole[:-1])]
    road.post(link, b"".join(whole))
    road.turn()
    assert link.codes == ["ACK"] * 5
    assert (road.spool(), road.reports()) == ([], [("S1", "released")])


def test_where_a_message_stood_is_stored_with_it_until_its_file_has_left(road: Road) -> None:
    """In one transaction, for what cannot be read and for what is too large as well; each analyzer has its own."""
    link, other = road.link(), road.link("astm")
    road.event(link, Received(1, oru("S1"), Place("a b", "0/2")))
    road.event(link, Received(2, b"nothing", Place("a b", "1/2")))
    road.event(link, Oversize(3, b"MSH|", 70_000, b"x" * 32, Place("c", "failed")))
    road.event(other, Received(1, b"".join(records("S2")), Place("a b", "0/1")))
    road.turn()
    assert len(road.kinds()) == 4
    assert road.ask(lambda tx: files_of(tx, "hl7")) == {"a b": ["0/2", "1/2"], "c": ["failed"]}
    assert road.intake.unsettled == {"hl7": 0, "astm": 0}
    road.event(link, Left("a b"))
    road.turn()
    assert road.ask(lambda tx: files_of(tx, "hl7")) == {"c": ["failed"]}
    assert road.ask(lambda tx: files_of(tx, "astm")) == {"a b": ["0/1"]}
    assert len(road.kinds()) == 4


def test_what_is_under_way_counts_until_it_is_settled_though_its_link_is_gone(road: Road) -> None:
    link = road.link()
    with road.busy():
        road.post(link, oru("S1"))
        road.intake.closed(link)
        assert road.intake.unsettled["hl7"] == 1
    road.turn()
    assert road.intake.unsettled["hl7"] == 0


def test_answers_leave_in_the_order_of_receipt(road: Road) -> None:
    link = road.link()
    with road.busy():
        tokens = [road.post(link, oru(f"S{n}")) for n in range(20)]
    road.turn()
    assert [token for token, _ in link.settled] == tokens


def test_a_message_whose_link_is_gone_is_stored_all_the_same(road: Road) -> None:
    link = road.link()
    with road.busy():
        road.post(link, oru("S1"))
        road.intake.closed(link)
    road.turn()
    assert (link.settled, road.reports()) == ([], [("S1", "released")])
    road.event(link, Stray(b"x", 1))  # after it is gone
    road.intake.closed(link)
    assert road.intake.idle


def test_a_group_that_fails_with_another_job_stores_nothing_twice(road: Road) -> None:
    """The writer runs every job of a failed group again, alone."""
    link, frames = road.link(), road.link("astm")
    with road.busy():
        road.store.submit(_fails, lambda _: None, lambda _: None)
        road.post(link, oru("S1"))
        road.event(frames, Part(7, H))
    road.turn()
    assert (link.codes, frames.codes, road.reports()) == (["AA"], ["ACK"], [("S1", "released")])
    assert (len(road.queued), len(road.kinds()), road.spool()) == (1, 1, [H])
    assert road.intake.tally["hl7"]["message"] == 1


def _fails(tx: Transaction) -> None:
    raise OSError("another job")


# -- batches ---------------------------------------------------------------------------------------------------------


def test_what_nobody_sends_again_keeps_its_order_whatever_fails(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that says more while it is told that a batch failed begins no second one beside the next."""
    monkeypatch.setattr(rooms, "BATCH_MESSAGES", 4)

    class Eager(Link):
        left = 2

        def settle(self, token: int, answer: Answer) -> None:
            super().settle(token, answer)
            if self.left:
                self.left -= 1
                road.post(self, oru(f"N{self.left}"))

    class Raw(Link):
        repeats = False

    jobs: list[Any] = []

    class Waiting:
        def submit(self, *job: Any) -> None:
            jobs.append(job)

    def lost(batches: list[Any]) -> None:
        """They ran in one group, and its commit failed."""
        for run, _, _ in batches:
            run.__self__.items = road.intake.take()
        for _, _, failed in batches:
            failed(StoreUnavailable("down"))

    eager, raw = Eager(), Raw()
    road.intake.opened("hl7", eager)
    road.intake.opened("astm", raw)
    road.intake.store = Waiting()
    road.post(eager, oru("A"))
    first = jobs.pop()
    first[0].__self__.items = road.intake.take()
    for n in range(4):
        road.post(eager, oru(f"B{n}"))
    road.event(raw, Received(50, b"x"))
    road.event(raw, Part(51, H + P))
    road.event(raw, Abandoned("silence"))
    first[2](StoreUnavailable("down"))
    under_way = jobs.copy()
    jobs.clear()
    lost(under_way)
    assert len(under_way) == 1
    road.intake.store, eager.left = road, 0
    for job in jobs:
        road.submit(*job)
    for _ in range(2):
        road.turn()
        road.intake.catch_up()
    road.turn()
    assert ("incomplete", "open", H + P) in road.kinds()
    assert road.spool() == []


def test_analyzers_take_turns_and_the_links_of_each(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "BATCH_MESSAGES", 12)
    links = {name: road.link("astm" if name == "Q" else "hl7") for name in "ABCQ"}
    with road.busy():
        road.post(links["A"], oru("first"))  # keeps the batch before under way
        for name, count in (("A", 14), ("B", 3), ("C", 6), ("Q", 3)):
            for n in range(count):
                road.post(links[name], oru(f"{name}{n}"))
        batches = []
        while batch := road.intake.take():
            batches.append([bytes_of(item.event).split(b"OBR|1||")[1][:1].decode() for item in batch])
    assert [("".join(batch)) for batch in batches] == ["fQBQCQABCABC", "ACACACAAAAAA", "AAA"]


def test_a_flood_of_one_analyzer_makes_no_other_wait(road: Road) -> None:
    """However many links an analyzer floods, what another sends is in the next batch."""
    flood, quiet = [road.link() for _ in range(40)], road.link("astm")
    with road.busy():
        for link in flood:
            for n in range(30):
                road.post(link, oru(f"S{n}"))
        assert len(road.intake.take()) == 64
        road.post(quiet, oru("Q"))
        assert [item.desk.analyzer for item in road.intake.take()].index("astm") < 2


def test_no_random_bytes_are_given_twice() -> None:
    entropy = rooms.Entropy()
    given = [entropy(7) for _ in range(2000)]
    assert {len(one) for one in given} == {7}
    assert len(set(given)) == 2000


def test_a_batch_has_its_limits_in_messages_and_in_bytes(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    with road.busy():
        for n in range(20):
            link = road.link()
            for m in range(16):
                road.post(link, oru(f"{n}-{m}"))
        assert [len(road.intake.take()) for _ in range(6)] == [64] * 5 + [0]
        monkeypatch.setattr(rooms, "BATCH_BYTES", 1000)
        link = road.link()
        for _ in range(6):
            road.post(link, oru("S1") + b"Z" * 300)
        sizes = [sum(len(bytes_of(item.event)) for item in road.intake.take()) for _ in range(4)]
    assert all(size < 1500 for size in sizes)
    assert sizes[-1] == 0


def test_what_arrives_while_a_batch_commits_is_the_next_batch(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    link, submit = road.link(), road.store.submit

    def counted(*job: Any) -> None:
        commits.append(1)
        submit(*job)

    monkeypatch.setattr(road.store, "submit", counted)
    with road.busy():
        for n in range(10):
            road.post(link, oru(f"S{n}"))
    road.turn()
    assert len(commits) <= 1 + 2  # what keeps the writer busy, the first message, the rest
    assert len(road.reports()) == 10


# -- backpressure ----------------------------------------------------------------------------------------------------


def test_a_link_with_32_unsettled_messages_is_not_read_until_half_of_them_are_settled(road: Road) -> None:
    link, other = road.link(), road.link()
    with road.busy():
        for n in range(40):
            road.post(link, oru(f"S{n}"))
            assert link.said == (["hold"] if n >= 31 else [])
        road.post(other, oru("other"))
    road.turn()
    assert (link.said, other.said) == (["hold", "unhold"], [])
    assert (len(link.settled), len(road.reports())) == (40, 41)


def test_with_too_much_waiting_in_all_every_link_that_sends_is_held_and_read_again(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "WAITING_BYTES", 1000)
    links = [road.link() for _ in range(5)]
    with road.busy():
        for n in range(12):
            for number, link in enumerate(links):
                road.post(link, oru(f"S{number}-{n}"))
        assert all("hold" in link.said for link in links)
    road.turn()
    assert all(link.said[-1] == "unhold" for link in links)
    assert len(road.reports()) == 60


def test_frames_count_like_messages(road: Road) -> None:
    link = road.link("astm")
    with road.busy():
        for n in range(33):
            road.event(link, Part(n, H))
        assert link.said == ["hold"]
    road.turn()
    assert link.said == ["hold", "unhold"]


# -- the store fails -------------------------------------------------------------------------------------------------


def test_what_cannot_be_stored_is_refused_for_now_and_nothing_of_it_is_kept(road: Road) -> None:
    """AE and NAK, never AR: it is to be sent again, and is then stored once."""
    link, frames = road.link(), road.link("astm")
    road.down = True
    road.post(link, oru("S1"))
    road.event(frames, Part(1, H))
    road.event(link, Oversize(9, oru("S2"), 99, b"d" * 32))
    road.post(frames, H + b"Q|1|^S1\r" + L)
    road.turn()
    assert (link.codes, frames.codes, frames.sent) == (["AE", "AE"], ["NAK", "NAK"], [])
    assert (road.kinds(), road.queued, road.spool()) == ([], [], [])
    road.down = False
    road.post(link, oru("S1"))
    road.turn()
    assert (link.codes[-1], road.reports()) == ("AA", [("S1", "released")])


def test_until_the_store_was_taken_up_everything_is_refused_for_now(road: Road) -> None:
    road.intake.accepting = False
    link = road.link()
    road.post(link, oru("S1"))
    assert (link.codes, road.intake.idle) == (["AE"], True)


def test_bytes_outside_any_message_that_could_not_be_stored_are_stored_later(road: Road) -> None:
    link = road.link()
    road.down = True
    road.event(link, Stray(b"GET /", 5))
    road.turn()
    road.down = False
    road.post(link, oru("S1"))
    road.turn()
    assert sorted(kind for kind, _, _ in road.kinds()) == ["stored", "stray"]
    assert road.intake._bytes == 0


def test_a_broken_transmission_that_could_not_be_stored_is_stored_later(road: Road) -> None:
    """Its frames were confirmed: some analyzers never send them again."""
    first, second, other = road.link("astm"), road.link("astm"), road.link()
    road.frames(first, [H, P])
    road.frames(second, [H])
    road.down = True
    road.event(first, Abandoned("closed"))
    road.intake.closed(first)
    road.event(second, Abandoned("time-out"))
    road.turn()
    assert road.kinds() == []
    assert sorted(road.spool()) == [H, H + P]
    road.down = False
    road.post(other, oru("S1"))
    road.turn()
    found = road.kinds()
    assert sorted(found) == [("incomplete", "open", H), ("incomplete", "open", H + P), ("stored", "", oru("S1"))]
    assert road.spool() == []


# -- broken transmissions --------------------------------------------------------------------------------------------


def test_the_frames_of_two_links_and_of_two_transmissions_never_mix(road: Road) -> None:
    one, two = road.link("astm"), road.link("astm")
    road.frames(one, [H, b"P|1||one\r"])
    road.frames(two, [H, b"P|1||two\r"])
    road.event(one, Abandoned("a new ENQ"))
    road.frames(one, [H, b"P|1||three\r"])
    road.post(two, b"".join(records("S2")))
    road.turn()
    assert [(kind, body) for kind, _, body in road.kinds()] == [
        ("incomplete", H + b"P|1||one\r"),
        ("stored", b"".join(records("S2"))),
    ]
    assert road.spool() == [H + b"P|1||three\r"]


def test_a_transmission_that_broke_off_without_a_frame_is_nothing(road: Road) -> None:
    link = road.link("astm")
    road.event(link, Abandoned("EOT"))
    road.turn()
    assert road.kinds() == []


def test_what_broke_off_settles_itself_when_it_comes_whole(road: Road) -> None:
    link, again = road.link("astm"), road.link("astm")
    road.frames(link, records()[:3])
    road.event(link, Abandoned("closed"))
    road.turn()
    stranger = road.link("astm-2")
    road.post(stranger, b"".join(records()))  # another analyzer's is another one
    road.post(again, b"".join(records("S2")))  # so is another message
    road.turn()
    assert next((kind, state) for kind, state, _ in road.kinds()) == ("incomplete", "open")
    road.frames(again, records()[:4])
    road.post(again, b"".join(records()))
    road.turn()
    assert next((kind, state) for kind, state, _ in road.kinds()) == ("incomplete", "settled")


def test_what_an_earlier_run_left_incomplete_settles_itself_too(road: Road) -> None:
    body = b"".join(records()[:2])
    number = road.ask(lambda tx: tx.message(direction="in", analyzer="astm", kind="incomplete", body=body, state="open"))
    road.intake.remember_incomplete("astm", number, body)
    road.post(road.link("astm"), b"".join(records()))
    road.turn()
    assert road.kinds()[0][:2] == ("incomplete", "settled")


# -- duplicates ------------------------------------------------------------------------------------------------------


def test_the_same_message_again_is_acknowledged_and_stored_as_a_duplicate(road: Road) -> None:
    """# conformance: C17."""
    link = road.link()
    for _ in range(2):
        road.post(link, oru("S1", "S2"))
        road.turn()
    assert link.codes == ["AA", "AA"]
    assert [kind for kind, _, _ in road.kinds()] == ["stored", "duplicate"]
    assert road.reports() == [("S1", "released"), ("S2", "released")]
    assert len(road.queued) == 2


def test_the_same_message_twice_in_one_batch_is_a_duplicate_too(road: Road) -> None:
    link, other = road.link(), road.link()
    with road.busy():
        for _ in range(3):
            road.post(link, oru("S1"))
            road.post(other, oru("S1"))
    road.turn()
    assert sorted(kind for kind, _, _ in road.kinds()) == ["duplicate"] * 5 + ["stored"]


def test_a_message_of_which_a_part_is_known_brings_its_news(road: Road) -> None:
    link = road.link("astm")
    road.post(link, b"".join(records("S1")))
    road.turn()
    two = b"".join([*records("S1")[:-1], *records("S2")[2:]])
    road.post(link, two)
    road.turn()
    assert [kind for kind, _, _ in road.kinds()] == ["stored", "stored"]
    assert road.reports() == [("S1", "released"), ("S2", "released")]


def test_the_same_id_with_another_content_is_another_message(road: Road) -> None:
    """MSH-10 alone identifies nothing: real analyzers always send 1."""
    link = road.link()
    for value in ("4.1", "4.2", "4.1"):
        road.post(link, oru("S1", value=value))
        road.turn()
    assert road.reports() == [("S1", "released"), ("S1", "held"), ("S1", "held")]


def test_a_specimen_twice_in_one_payload_is_no_duplicate_of_itself(road: Road) -> None:
    """A batch whose second message runs the test again."""
    both = b"BHS|^~\\&\r" + oru("S1", number="1") + oru("S1", value="4.4", number="2") + b"BTS|2\r"
    road.post(road.link(), both)
    road.turn()
    assert road.reports() == [("S1", "released"), ("S1", "held")]


def test_a_lone_escape_character_is_logged_and_holds_nothing(road: Road) -> None:
    """# conformance: D06."""
    with capture_logs() as said:
        road.post(road.link(), oru("S1") + b"NTE|1||5 \\ 3\r")
        road.turn()
    assert [(line["event"], line["analyzer"], line["why"]) for line in said] == [("odd message", "hl7", ["lone-escape"])]
    assert road.reports() == [("S1", "released")]


# -- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"MSH|^~\\&|A|B|||1||ADT^A01|7|P|2.3.1\r", "AR", "unsupported-type"),
        (b"nonsense", "AA", "no-header"),
        (b"MSH|^~\\&|A|B|||1|||7|P|2.3.1\rOBX|1\r", "AA", "no-message-type"),
    ],
)
def test_what_cannot_be_read_is_kept_acknowledged_and_shown(road: Road, payload: bytes, code: str, reason: str) -> None:
    link = road.link()
    road.post(link, payload)
    road.turn()
    assert (link.codes, road.kinds()) == ([code], [("unreadable", "open", payload)])
    (note,) = road.rows("select note from message")
    assert model.decode(note.encode(), list[Reason])[0].code == reason


def test_a_fault_of_the_reader_loses_no_message(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(payload: bytes, rules: AnalyzerRules) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "read", broken)
    link = road.link()
    road.post(link, oru("S1"))
    road.turn()
    assert (link.codes, [kind for kind, _, _ in road.kinds()]) == (["AA"], ["unreadable"])


def test_a_fault_of_ours_on_one_message_costs_no_other(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept, acknowledged and shown; refused, it would come again for ever and spoil every batch."""
    decide = pipeline.decide

    def broken(report: model.Report, *rest: Any) -> pipeline.Outcome:
        if report.specimen.id == "BAD":
            raise ZeroDivisionError
        return decide(report, *rest)

    monkeypatch.setattr(pipeline, "decide", broken)
    link, other = road.link(), road.link()
    with road.busy():
        road.post(link, oru("S1"))
        road.post(link, oru("S2", "BAD"))
        road.post(other, oru("S3"))
    road.turn()
    assert (link.codes, other.codes) == (["AA", "AA"], ["AA"])
    assert ("unreadable", "open", oru("S2", "BAD")) in road.kinds()
    assert {("S1", "released"), ("S3", "released")} <= set(road.reports())
    assert road.store.state.name == "ready"


def test_what_could_not_be_decided_whole_is_no_earlier_result(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = pipeline.decide

    def broken(report: model.Report, *rest: Any) -> pipeline.Outcome:
        if report.specimen.id == "BAD":
            raise ZeroDivisionError
        return decide(report, *rest)

    monkeypatch.setattr(pipeline, "decide", broken)
    link = road.link()
    with road.busy():
        road.post(link, oru("S1", "BAD"))
        road.post(link, oru("S1", number="2"))
    road.turn()
    assert road.reports() == [("S1", "released")]


def test_what_is_tried_later_is_not_overtaken_by_what_came_after_it(road: Road) -> None:
    link = road.link("astm")
    with road.busy():
        road.event(link, Stray(b"two", 3))
        (desk,) = road.intake._desks.values()
        road.intake.try_later(Item(desk, "s", Stray(b"one", 3), desk.rules))
    road.turn()
    road.intake.catch_up()
    road.turn()
    assert [body for _, _, body in road.kinds()] == [b"one", b"two"]


def test_what_nobody_sends_again_is_stored_when_the_store_is_back(road: Road) -> None:
    link = road.link("astm")
    road.down = True
    road.event(link, Stray(b"garbage", 7))
    road.turn()
    assert road.kinds() == []
    road.down = False
    road.intake.catch_up()
    road.turn()
    assert [(kind, body) for kind, _, body in road.kinds()] == [("stray", b"garbage")]


def test_a_message_without_a_result_waits_for_a_person(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "read", lambda payload, rules: model.Reading(problems=(Reason("no-results"),)))
    road.post(road.link(), oru("S1"))
    road.turn()
    assert [(kind, state) for kind, state, _ in road.kinds()] == [("stored", "open")]


def test_what_is_too_large_is_kept_in_part_and_refused_for_good(road: Road) -> None:
    link, frames = road.link(), road.link("astm")
    road.event(link, Oversize(1, oru("S1"), 99_000_000, b"d" * 32))
    road.frames(frames, [H])
    road.event(frames, Oversize(2, H, 99_000_000, b"d" * 32))
    road.turn()
    assert (link.codes, frames.codes) == (["AR"], ["ACK", "NAK"])
    assert [(kind, state) for kind, state, _ in road.kinds()] == [("oversize", "open")] * 2
    assert road.spool() == []
    assert road.rows("select size from message") == [99_000_000] * 2


def test_bytes_outside_any_message_are_journaled(road: Road) -> None:
    link = road.link()
    road.event(link, Stray(b"GET / HTTP/1.1", 14))
    road.turn()
    assert (road.kinds(), link.settled) == ([("stray", "open", b"GET / HTTP/1.1")], [])


def test_refused_frames_that_came_right_are_journaled_for_nobody(road: Road) -> None:
    road.event(road.link("astm"), Stray(b"1H|", 3, resent=True))
    road.turn()
    assert road.kinds() == [("resent", "", b"1H|")]


@given(st.binary(max_size=40), st.sampled_from(["hl7", "astm"]))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_said_is_stored_and_answered(road: Road, said: bytes, name: str) -> None:
    before = len(road.kinds())
    link = road.link(name)
    road.post(link, (b"MSH|^~\\&|" if name == "hl7" else b"H|\\^&|") + said)
    road.turn()
    assert len(road.kinds()) == before + 1
    assert [answer.accepted for _, answer in link.settled] == [True]


# -- queries, notes, counts, revisions -------------------------------------------------------------------------------


def test_a_query_is_answered_after_its_acknowledgement(road: Road) -> None:
    link = road.link("astm")
    road.post(link, H + b"Q|1|^S1\r" + L)
    road.turn()
    assert link.codes == ["ACK"]
    assert len(link.sent) == 1
    assert link.sent[0].endswith(b"L|1|I\r")


def test_what_a_link_notes_stops_nothing(road: Road) -> None:
    link = road.link()
    for event in (Overdue(1), Failed(1, "busy"), Note("info", "contention")):
        road.event(link, event)
    assert link.said == []
    assert road.intake.idle


def test_what_arrived_is_counted_by_analyzer(road: Road) -> None:
    link = road.link()
    road.post(link, oru("S1"))
    road.post(link, oru("S1", value="7"))
    road.turn()
    tally = road.intake.tally["hl7"]
    assert (tally["message"], tally["report"], tally["held"], tally["last"]) == (2, 2, 1, int(NOW))
    value = road.intake.metrics.registry.get_sample_value
    assert value("labbridge_reports_total", {"analyzer": "hl7", "state": "held"}) == 1
    assert value("labbridge_messages_total", {"analyzer": "hl7", "kind": "stored"}) == 2


def test_the_skew_of_an_analyzers_clock_is_measured_and_told(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages come late by some, never early: of the last ones the most counts. # conformance: D18."""
    link = road.link()
    for late in (7.0, 2.0, 400.0):
        road.now = NOW + late
        road.post(link, oru("S1", number=str(late)))
        road.turn()
    assert road.intake.tally["hl7"]["skew"] == -2
    assert road.intake.metrics.registry.get_sample_value("labbridge_clock_skew_seconds", {"analyzer": "hl7"}) == -2
    road.now = NOW - 3600
    for number in range(2):
        road.post(link, oru("S2", number=str(number)))
        road.turn()
    assert road.intake.tally["hl7"]["skew"] == 3600
    assert capsys.readouterr().out.count("the analyzer's clock is off") == 1


def test_a_new_revision_decides_from_the_next_batch_on(road: Road) -> None:
    link, gone = road.link(), road.link("astm")
    road.post(link, oru("S1"))
    road.turn()
    strict = msgspec.structs.replace(analyzer(auto_release=False), name="hl7")
    road.intake.revise(msgspec.structs.replace(road.revision, digest=b"s" * 32, analyzers={"hl7": strict}))
    road.post(link, oru("S2"))
    road.post(gone, b"".join(records("S3")))  # its analyzer is no longer configured: decided as it was
    road.turn()
    assert road.reports() == [("S1", "released"), ("S2", "held"), ("S3", "released")]
    assert road.rows("select revision from decision order by id") == [1, 2, 2]


def test_an_error_names_no_patient() -> None:
    assert str(RemoteProtocolError(Reason("no-header"))) == "no-header"


def test_a_retry_sends_what_no_later_measurement_has_replaced(road: Road) -> None:
    """K of a refused delivery was delivered from a later measurement since; its GLU was not, and must still arrive."""
    rules = msgspec.structs.replace(analyzer(repeat="latest-measured"), name="hl7")
    compiled = msgspec.structs.replace(revision(rules), analyzers={"hl7": rules})
    road.intake.revise(compiled)
    link = road.link()
    glucose = b"OBX|2|NM|GLU||5|mmol/L|||||F|||20261121100000\r"
    first = oru("S1").replace(b"OBX|1|NM|K", glucose + b"OBX|1|NM|K")
    first = first.replace(b"F|||20261121101000", b"F|||20261121100000")
    road.post(link, first)
    road.turn()
    road.post(link, oru("S1", value="4.4"))
    road.turn()
    one, two = road.queued
    road.ask(lambda tx: (tx.set_delivery_state(one.id, "refused"), tx.set_delivery_state(two.id, "delivered")))
    road.ask(lambda tx: commands.COMMANDS["retry"](tx, compiled, moment(60), Request("retry", deliveries=[one.id]), "tech"))
    payloads = road.rows("select payload from delivery where state = 'queued'")
    assert any(b"GLU" in payload for payload in payloads), road.rows("select id, state from delivery")
