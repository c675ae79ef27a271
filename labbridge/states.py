"""The derived states, worked out anew from the facts: what `labbridge verify` holds each state column against.

Seen once, in any order, one byte a row is kept in mind: what the row says and what the facts say of it. Only what an
ordinary history does not explain (a person decided, a delivery was refused, withdrawn or waited) is looked up again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import msgspec

from labbridge import model, pipeline
from labbridge.model import Decision, Report
from labbridge.store import Reader
from labbridge.store.erasure import erased
from labbridge.store.ledger import HEAD, SIZE
from labbridge.store.rows import Attempt, Delivery, Earlier, Entry, Message
from labbridge.store.rows import Decision as Stored
from labbridge.store.schema import ATTEMPT, AUDIT, DELIVERY, Fact

CHUNK = 200  # what is looked up at once
DENSE = 1 << 28  # ids are given one after the other; one beyond this was changed

# What is kept of a message.
_HAS_REPORT, _NONE, _OPEN, _SETTLED, _ALWAYS, _EMPTY, _BY_PERSON, _WRONG = (1 << n for n in range(8))
_MESSAGE = {"": _NONE, "open": _OPEN, "settled": _SETTLED}
_ALWAYS_OPEN = {"unreadable", "incomplete", "oversize", "stray"}
# Of a delivery.
_DELIVERED, _QUEUED, _OTHER, _ACCEPTED, _TOUCHED = (1 << n for n in range(5))
# Of a report.
_PLAIN, _LOOK = 1, 2

_SETTLING = frozenset({"", "release", "reject", "confirm-id"})  # kinds of decisions; version 0.1.0 did not write them down
_GONE = frozenset({"released", "rejected", "superseded", "kept"})


class _Told(NamedTuple):
    """What a fact says of a delivery."""

    fact: Fact
    id: int
    at: int
    what: str  # how an attempt ended, "=" and the state that a person gave it, or "joined"


class States:
    """One verification of the states; see ``labbridge.store.proving.States``."""

    old = 0

    def __init__(self) -> None:
        self._messages = _Marks()
        self._deliveries = _Marks()
        self._reports = _Marks()
        self._first: dict[int, Any] = {}  # reports whose first decision has not come yet
        self._early: dict[int, Any] = {}  # and decisions whose report has not
        self._audits: defaultdict[int, list[_Told]] = defaultdict(list)  # what persons did with a delivery

    def see(self, table: str) -> Callable[[Any], None] | None:
        """Who is shown each row of a table."""
        shown: dict[str, Callable[[Any], None]] = {
            "message": self._message,
            "report": self._report,
            "decision": self._decision,
            "delivery": self._delivery,
            "attempt": self._attempt,
            "audit": self._audit,
        }
        return shown.get(table)

    def _message(self, row: Any) -> None:
        mark = _MESSAGE.get(row.state, _WRONG)
        if row.kind in _ALWAYS_OPEN:
            mark |= _ALWAYS
            if row.kind == "incomplete" and row.at <= self.old:  # 0.1.0 did not write down that it came whole
                mark |= _BY_PERSON if row.state == "settled" else 0
        elif row.kind == "stored" and row.note:
            mark |= _EMPTY
        self._messages.add(row.id, mark)

    def _report(self, row: Any) -> None:
        self._messages.add(row.message_id, _HAS_REPORT)
        decision = self._early.pop(row.id, None)
        if decision is None:
            self._first[row.id] = row
        else:
            self._judge(row, decision)

    def _decision(self, row: Any) -> None:
        report = self._first.pop(row.report_id, None)
        if report is not None:
            self._judge(report, row)
        elif self._reports.get(row.report_id) or row.report_id in self._early:
            self._reports.add(row.report_id, _LOOK)
        else:
            self._early[row.report_id] = row

    def _judge(self, report: Any, decision: Any) -> None:
        right = report.state in states_of(report, [decision.document], old=report.at <= self.old)
        self._reports.add(report.id, _PLAIN if right else _LOOK)

    def _delivery(self, row: Any) -> None:
        self._deliveries.add(row.id, {"delivered": _DELIVERED, "queued": _QUEUED}.get(row.state, _OTHER))
        if row.due and row.state != "delivered":
            self._deliveries.add(row.id, _TOUCHED)

    def _attempt(self, row: Any) -> None:
        if row.outcome.startswith("accepted"):
            self._deliveries.add(row.delivery_id, _ACCEPTED)
        elif row.outcome.startswith("refused"):
            self._deliveries.add(row.delivery_id, _TOUCHED)

    def _audit(self, row: Any) -> None:
        what, _, number = row.subject.partition(" ")
        if what == "message" and row.new == "settled" and number.isdecimal():
            self._messages.add(int(number), _BY_PERSON)
        elif what == "delivery" and number.isdecimal():
            self._deliveries.add(int(number), _TOUCHED)
            self._audits[int(number)].append(_Told(AUDIT, row.id, row.at, f"={row.new}"))

    def problems(self, reader: Reader) -> Iterator[str]:
        """Which states do not follow from what was seen.

        The store may have gone on meanwhile: what seems wrong is looked at again, in one view of the store.
        """
        for number in self._first:
            self._reports.add(number, _LOOK)
        for numbers in _chunks(self._messages.matching(lambda mark: not _message_is_right(mark))):
            with reader.still() as still:
                for number in self._wrong_messages(still, numbers):
                    yield f"message {number} has a state that does not follow from the facts"
        for numbers in _chunks(self._reports.matching(lambda mark: bool(mark & _LOOK))):
            with reader.still() as still:
                for number in _wrong_reports(still, numbers, self.old):
                    yield f"report {number} has a state that does not follow from its decisions"
        odd = self._deliveries.matching(lambda mark: not mark & _DELIVERED & (mark >> 3) and mark != _QUEUED)
        for numbers in _chunks(odd):
            with reader.still() as still:
                wrong = _wrong_deliveries(still, numbers, self._audits)
                for number in wrong and _wrong_deliveries(still, wrong, _audits_of(still, wrong), by_ledger=True):
                    yield f"delivery {number} has a state that does not follow from the facts"

    def _wrong_messages(self, still: Reader, numbers: Sequence[int]) -> Iterator[int]:
        settled = {audit.subject for audit in still.audits(f"message {number}" for number in numbers) if audit.new == "settled"}
        for row in still.rows(Message, "id", numbers, large=False):
            said = self._messages.get(row.id) & ~(_NONE | _OPEN | _SETTLED | _WRONG)
            told = _BY_PERSON if f"message {row.id}" in settled else 0
            if not _message_is_right(said | told | _MESSAGE.get(row.state, _WRONG)):
                yield row.id


class _Marks:
    """A byte for each id."""

    def __init__(self) -> None:
        self._dense = bytearray()
        self._far: defaultdict[int, int] = defaultdict(int)

    def add(self, id: int, mark: int) -> None:
        if not 0 <= id < DENSE:
            self._far[id] |= mark
            return
        if id >= len(self._dense):
            self._dense.extend(bytes(max(id + 1 - len(self._dense), 1 << 16)))
        self._dense[id] |= mark

    def get(self, id: int) -> int:
        return self._dense[id] if 0 <= id < len(self._dense) else self._far.get(id, 0)

    def matching(self, wanted: Callable[[int], bool]) -> Iterator[int]:
        """The ids with such a mark, in order."""
        table = bytes(mark != 0 and wanted(mark) for mark in range(256))
        found, at = self._dense.translate(table), -1
        while (at := found.find(1, at + 1)) >= 0:
            yield at
        yield from sorted(id for id, mark in self._far.items() if wanted(mark))


def _message_is_right(mark: int) -> bool:
    if not mark & (_NONE | _OPEN | _SETTLED | _WRONG):
        return True  # the message itself is missing, which the ledger tells
    opened = bool(mark & _ALWAYS) or (bool(mark & _EMPTY) and not mark & _HAS_REPORT)
    if mark & _NONE:
        return not opened
    return opened and bool(mark & (_SETTLED if mark & _BY_PERSON else _OPEN))


def states_of(report: Any, decisions: Sequence[bytes], *, old: bool = False) -> frozenset[str]:
    """The states that a report's row may have after these decisions, oldest first; ``old``: version 0.1.0 wrote it."""
    if erased(report.document) or any(map(erased, decisions)):
        return _GONE
    if report.role not in ("patient", "unknown"):
        return frozenset({"kept"})
    try:
        said, decided = model.decode(report.document, Report), [model.decode(one, Decision) for one in decisions]
    except (msgspec.MsgspecError, ValueError, TypeError):
        return frozenset()
    now = pipeline.standing(decided)
    states = frozenset({pipeline.state_of(now, said)})
    if decided and all(one.verdict.action == "ignore" for one in now):
        if any(one.actor != "rules" and one.kind in _SETTLING for one in decided):
            states |= {"released", "rejected"}  # a person has settled its problems
        elif old and now:
            states |= {"released"}  # 0.1.0 held no problems of a report of which nothing was to leave
    return states


def _wrong_reports(still: Reader, numbers: Sequence[int], old: int) -> list[int]:
    decisions: defaultdict[int, list[bytes]] = defaultdict(list)
    for decision in still.rows(Stored, "report_id", numbers):
        decisions[decision.report_id].append(decision.document)
    wrong = []
    for row in still.rows(Earlier, "id", numbers):
        of_old = isinstance(row.at, int) and row.at <= old
        if row.state not in states_of(row, decisions[row.report_id], old=of_old):
            wrong.append(row.report_id)
    return wrong


def _wrong_deliveries(
    still: Reader, numbers: Sequence[int], audits: Mapping[int, Sequence[_Told]], *, by_ledger: bool = False
) -> list[int]:
    rows = still.rows(Delivery, "id", numbers, large=False)
    told = defaultdict(list, {row.id: list(audits.get(row.id, ())) for row in rows})
    for attempt in still.rows(Attempt, "delivery_id", numbers, large=False):
        if isinstance(attempt.at, int) and isinstance(attempt.outcome, str):  # else it was changed, which the ledger tells
            told[attempt.delivery_id].append(_Told(ATTEMPT, attempt.id, attempt.at, attempt.outcome.partition(" ")[0]))
    siblings: defaultdict[int, list[Delivery]] = defaultdict(list)
    for one in still.rows(Delivery, "report_id", {row.report_id for row in rows}, large=False):
        if isinstance(one.at, int):
            siblings[one.report_id].append(one)
    for row in rows:
        for other in siblings[row.report_id] if isinstance(row.due, int) else ():
            if other.id > row.id and other.destination == row.destination and row.due > other.at:
                told[row.id].append(_Told(DELIVERY, other.id, other.at, "joined"))
    when = _entries(still, [one for of in told.values() for one in of]) if by_ledger else {}
    return [row.id for row in rows if row.state not in _outcomes((when.get(one, one.at), one.what) for one in told[row.id])]


def _entries(still: Reader, told: Sequence[_Told]) -> dict[_Told, int]:
    """Which entry of the ledger lists each fact: the clock may have gone back, and no time tells what came first."""
    heads = {HEAD.pack(one.fact.code, one.id): one for one in told}
    return {
        heads[head]: entry.sequence
        for entry in still.rows(Entry, "at", {one.at for one in told})
        for start in range(0, len(entry.facts) if isinstance(entry.facts, bytes) else 0, SIZE)
        if (head := entry.facts[start : start + HEAD.size]) in heads
    }


def _audits_of(still: Reader, numbers: Sequence[int]) -> dict[int, list[_Told]]:
    """What persons did with these deliveries; looks through the whole audit."""
    told: defaultdict[int, list[_Told]] = defaultdict(list)
    for audit in still.audits(f"delivery {number}" for number in numbers):
        if isinstance(audit.at, int):
            told[int(audit.subject.rpartition(" ")[2])].append(_Told(AUDIT, audit.id, audit.at, f"={audit.new}"))
    return told


def _outcomes(told: Iterable[tuple[int, str]]) -> set[str]:
    """The states that a delivery may have after what is told of it: of what was committed together the order is open."""
    by_time: defaultdict[int, list[str]] = defaultdict(list)
    for when, what in told:
        by_time[when].append(what)
    states = {"queued"}
    for _, events in sorted(by_time.items()):
        orders = permutations(events) if len(events) <= 3 else (events,)
        states = {_after(state, order) for order in orders for state in states}
    return states


def _after(state: str, events: Iterable[str]) -> str:
    for event in events:
        if event == "accepted":
            state = "delivered"
        elif event.startswith("="):
            state = event[1:]
        elif state == "queued" and event in ("refused", "joined"):
            state = "refused" if event == "refused" else "superseded"
    return state


def _chunks(numbers: Iterator[int]) -> Iterator[list[int]]:
    some: list[int] = []
    for number in numbers:
        some.append(number)
        if len(some) >= CHUNK:
            yield some
            some = []
    if some:
        yield some
