"""The states that `labbridge verify` works out anew: every one that the facts do not bear out is named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labbridge import model
from labbridge.model import Decided, Decision, Reason, Report, Result, Specimen, Verdict
from labbridge.states import DENSE, States
from labbridge.store import Reader, Store, Transaction, verify
from tests.store.support import behind
from tests.store.test_retention import rewrite

NOTE = model.encode([Reason("incomplete", {})]).decode()
Do = Callable[[Transaction], Any]


class Lab:
    """A store, told what happened at which time."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/lab.db"
        self.now = 1000.0
        self.store = Store(self.url, clock=lambda: self.now)
        self.store.open()
        self.reader = Reader(self.url)

    def do(self, job: Do) -> Any:
        self.now += 1
        return self.store.call(job)

    def problems(self) -> list[str]:
        return verify(self.reader, states=States()).problems

    def set(self, table: str, state: str, id: int = 1) -> None:
        with behind(self.url) as connection:
            connection.exec_driver_sql(f"UPDATE {table} SET state = '{state}' WHERE id = {id}")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    one = Lab(tmp_path)
    yield one
    assert one.store.close()
    one.reader.close()


def message(tx: Transaction, kind: str = "stored", state: str = "", note: str = "") -> int:
    return tx.message(direction="in", analyzer="a", kind=kind, body=b"x", state=state, note=note)


def decision(*actions: Any, actor: str = "rules") -> bytes:
    return model.encode(Decision(tuple(Decided(n, "K", Verdict(action), "K", "4") for n, action in enumerate(actions)), actor))


def report(
    tx: Transaction, state: str, *actions: str, role: Any = "patient", problems: tuple[Reason, ...] = (), note: str = ""
) -> int:
    said = Report(Specimen("S1"), tuple(Result(code="K", value="4") for _ in actions), role, problems=problems)
    number = tx.report(
        message_id=message(tx, note=note),
        analyzer="a",
        key="S1",
        specimen="S1",
        role=role,
        state=state,
        digest=b"d" * 32,
        content=b"",
        document=model.encode(said),
    )
    tx.decision(report_id=number, actor="rules", revision=1, document=decision(*actions))
    return number


def delivery(tx: Transaction, due: int = 0, report_id: int = 1) -> int:
    return tx.delivery(destination="his", lane="S1", report_id=report_id, decision_id=1, control_id="C", payload=b"MSH", due=due)


def audit(tx: Transaction, subject: str, old: str, new: str) -> None:
    tx.audit(actor="lab", action="x", subject=subject, old=old, new=new)


MESSAGES: dict[str, tuple[Do, str]] = {
    "stored": (lambda tx: message(tx), ""),
    "duplicate": (lambda tx: message(tx, "duplicate", note=NOTE), ""),
    "nothing but problems": (lambda tx: message(tx, state="open", note=NOTE), "open"),
    "unreadable": (lambda tx: message(tx, "unreadable", "open"), "open"),
    "stray, settled": (lambda tx: (message(tx, "stray", "settled"), audit(tx, "message 1", "open", "settled")), "settled"),
}


@pytest.mark.parametrize("what", MESSAGES)
def test_the_state_of_a_message(lab: Lab, what: str) -> None:
    job, right = MESSAGES[what]
    lab.do(job)
    assert lab.problems() == []
    for state in {"", "open", "settled", "opeo"} - {right}:
        lab.set("message", state)
        assert lab.problems() == ["message 1 has a state that does not follow from the facts"], state


def test_a_message_with_problems_and_reports_is_not_open(lab: Lab) -> None:
    lab.do(lambda tx: report(tx, "released", "release", note=NOTE))
    assert lab.problems() == []
    lab.set("message", "open")
    assert lab.problems() == ["message 1 has a state that does not follow from the facts"]


REPORTS: dict[str, tuple[list[Do], set[str]]] = {
    "released": ([lambda tx: report(tx, "released", "release", "ignore")], {"released"}),
    "held": ([lambda tx: report(tx, "held", "release", "hold")], {"held"}),
    "superseded": ([lambda tx: report(tx, "superseded", "superseded")], {"superseded"}),
    "kept": ([lambda tx: report(tx, "kept", "ignore", role="qc")], {"kept"}),
    "held, then released": (
        [
            lambda tx: report(tx, "held", "release", "hold"),
            lambda tx: tx.decision(report_id=1, actor="lab", revision=1, document=decision("release", "release", actor="lab")),
            lambda tx: tx.set_report_state(1, "released"),
        ],
        {"released"},
    ),
    "held, then rejected": (
        [
            lambda tx: report(tx, "held", "hold"),
            lambda tx: tx.decision(report_id=1, actor="lab", revision=1, document=decision("rejected", actor="lab")),
            lambda tx: tx.set_report_state(1, "rejected"),
        ],
        {"rejected"},
    ),
    "held for its problems, then settled": (
        [
            lambda tx: report(tx, "held", problems=(Reason("no-specimen"),)),
            lambda tx: tx.decision(report_id=1, actor="lab", revision=1, document=decision(actor="lab")),
            lambda tx: tx.set_report_state(1, "rejected"),
        ],
        {"rejected", "released", "held"},
    ),
}


@pytest.mark.parametrize("what", REPORTS)
def test_the_state_of_a_report(lab: Lab, what: str) -> None:
    jobs, right = REPORTS[what]
    for job in jobs:
        lab.do(job)
    assert lab.problems() == []
    for state in {"released", "held", "rejected", "superseded", "kept", "hele"} - right:
        lab.set("report", state)
        assert lab.problems() == ["report 1 has a state that does not follow from its decisions"], state


def test_a_report_without_a_decision_or_with_one_that_cannot_be_read(lab: Lab) -> None:
    def odd(tx: Transaction) -> None:
        nobody = dict.fromkeys(("analyzer", "key", "specimen", "state"), "")
        for document in (b"{}", b"?"):
            tx.report(message_id=1, role="patient", digest=b"", content=b"", document=document, **nobody)

    lab.do(odd)
    assert [problem.split()[:2] for problem in lab.problems()] == [["report", "1"], ["report", "2"]]


DELIVERIES: dict[str, tuple[list[Do], str]] = {
    "queued": ([lambda tx: delivery(tx)], "queued"),
    "waits for the rest": ([lambda tx: delivery(tx, due=tx.at + 10**9)], "queued"),
    "delivered": (
        [
            lambda tx: delivery(tx),
            lambda tx: (tx.attempt(delivery_id=1, outcome="again AE"), tx.attempt(delivery_id=1, outcome="accepted AA")),
            lambda tx: tx.set_delivery_state(1, "delivered"),
        ],
        "delivered",
    ),
    "refused": (
        [
            lambda tx: delivery(tx),
            lambda tx: (tx.attempt(delivery_id=1, outcome="refused AE"), tx.set_delivery_state(1, "refused")),
        ],
        "refused",
    ),
    "refused, retried, cancelled": (
        [
            lambda tx: delivery(tx),
            lambda tx: tx.attempt(delivery_id=1, outcome="refused AE"),
            lambda tx: audit(tx, "delivery 1", "refused", "queued"),
            lambda tx: (audit(tx, "delivery 1", "queued", "cancelled"), tx.set_delivery_state(1, "cancelled")),
        ],
        "cancelled",
    ),
    "cancelled while it flew, and accepted": (
        [
            lambda tx: delivery(tx),
            lambda tx: audit(tx, "delivery 1", "queued", "cancelled"),
            lambda tx: (tx.attempt(delivery_id=1, outcome="accepted AA"), tx.set_delivery_state(1, "delivered")),
        ],
        "delivered",
    ),
    "cancelled and refused at once": (
        [
            lambda tx: delivery(tx),
            lambda tx: (audit(tx, "delivery 1", "queued", "cancelled"), tx.attempt(delivery_id=1, outcome="refused AE")),
            lambda tx: tx.set_delivery_state(1, "cancelled"),
        ],
        "cancelled",
    ),
    "left with the rest": (
        [lambda tx: delivery(tx, due=tx.at + 10**9), lambda tx: delivery(tx), lambda tx: tx.set_delivery_state(1, "superseded")],
        "superseded",
    ),
}


@pytest.mark.parametrize("what", DELIVERIES)
def test_the_state_of_a_delivery(lab: Lab, what: str) -> None:
    jobs, right = DELIVERIES[what]
    for job in (lambda tx: report(tx, "released", "release"), *jobs):
        lab.do(job)
    assert lab.problems() == []
    for state in {"queued", "delivered", "refused", "cancelled", "superseded", "queuee"} - {right}:
        lab.set("delivery", state)
        assert lab.problems() == ["delivery 1 has a state that does not follow from the facts"], state


def test_ids_that_nobody_gave_need_no_memory(lab: Lab) -> None:
    """A changed bit may make any number of an id, and so may whoever writes a fact."""
    lab.do(lambda tx: tx.attempt(delivery_id=2**62, outcome="accepted AA"))
    states = States()
    assert verify(lab.reader, states=states).problems == []
    assert not states._deliveries._dense
    assert list(states._deliveries.matching(bool)) == [2**62]
    assert DENSE < 2**62


def test_the_store_may_go_on_meanwhile(lab: Lab) -> None:
    """What a person or a hospital does while it is verified is no problem."""

    def before(tx: Transaction) -> None:
        message(tx, "stray", "open")
        report(tx, "held", "hold")
        for _ in range(3):
            delivery(tx, due=tx.at + 10**9)

    def after(tx: Transaction) -> None:
        audit(tx, "message 1", "open", "settled")
        tx.set_message_state(1, "settled")
        tx.decision(report_id=1, actor="lab", revision=1, document=decision("release", actor="lab"))
        tx.set_report_state(1, "released")
        tx.attempt(delivery_id=1, outcome="accepted AA")
        tx.set_delivery_state(1, "delivered")
        audit(tx, "delivery 2", "queued", "cancelled")
        tx.set_delivery_state(2, "cancelled")
        delivery(tx)
        tx.set_delivery_state(3, "superseded")

    class Late(States):
        def problems(self, reader: Reader) -> Iterator[str]:
            lab.do(after)
            return super().problems(reader)

    lab.do(before)
    assert verify(lab.reader, states=Late()).problems == []
    assert lab.problems() == []


def test_what_goes_on_while_the_rows_are_read_is_no_problem(lab: Lab) -> None:
    """The states are read after the end of what is verified was noted."""
    lab.do(lambda tx: [message(tx, "stray", "open") for _ in range(3)])
    lab.do(lambda tx: (report(tx, "released", "release"), delivery(tx)))

    class Late(States):
        def see(self, table: str) -> Callable[[Any], None] | None:
            if table == "message":
                lab.do(lambda tx: (audit(tx, "message 2", "open", "settled"), tx.set_message_state(2, "settled")))
                lab.do(lambda tx: (audit(tx, "delivery 1", "queued", "cancelled"), tx.set_delivery_state(1, "cancelled")))
            return super().see(table)

    assert verify(lab.reader, states=Late()).problems == []
    assert lab.problems() == []


def test_a_clock_that_went_back_is_no_problem(lab: Lab) -> None:
    """A person has a refused delivery sent again, and by the clock that was before it was refused."""
    lab.do(lambda tx: (report(tx, "released", "release"), delivery(tx)))
    lab.do(lambda tx: (tx.attempt(delivery_id=1, outcome="refused AE"), tx.set_delivery_state(1, "refused")))
    lab.now -= 100
    lab.do(lambda tx: (audit(tx, "delivery 1", "refused", "queued"), tx.set_delivery_state(1, "queued")))
    assert lab.problems() == []
    lab.set("delivery", "cancelled")
    assert lab.problems() == ["delivery 1 has a state that does not follow from the facts"]


def test_a_report_of_which_nothing_leaves_was_released_by_0_1_0_whatever_its_problems(lab: Lab) -> None:
    for _ in range(2):
        lab.do(lambda tx: report(tx, "released", "ignore", problems=(Reason("no-specimen"),)))
    assert lab.store.close()
    rewrite(lab.url, entries=1)
    assert lab.problems() == ["report 2 has a state that does not follow from its decisions"]
    lab.set("report", "superseded")
    assert [problem.split()[1] for problem in lab.problems()] == ["1", "2"]
    lab.store = Store(lab.url)
    lab.store.open()


@pytest.mark.parametrize(
    "what",
    [
        *("attempt SET at", "attempt SET outcome", "audit SET at", "delivery SET at", "delivery SET due"),
        *("report SET at", "ledger SET facts", "decision SET document"),
    ],
)
@pytest.mark.parametrize("value", ["'x'", "x'00ff'"])
def test_a_value_of_another_kind_is_a_problem_and_no_end_of_the_proof(lab: Lab, what: str, value: str) -> None:
    lab.do(lambda tx: [report(tx, "released", "release") for _ in range(2)])
    lab.do(lambda tx: [tx.decision(report_id=n, actor="lab", revision=1, document=decision(actor="lab")) for n in (1, 2)])
    lab.do(lambda tx: delivery(tx, due=tx.at + 10**9))
    lab.do(lambda tx: (delivery(tx), tx.set_delivery_state(1, "superseded")))
    for number in (1, 2):
        lab.do(lambda tx: tx.attempt(delivery_id=number, outcome="refused AE"))  # noqa: B023 (run at once)
        lab.do(lambda tx: audit(tx, f"delivery {number}", "refused", "superseded"))  # noqa: B023 (run at once)
    lab.do(lambda tx: tx.set_delivery_state(2, "superseded"))
    assert lab.problems() == []
    for number in (1, 2):
        with behind(lab.url) as connection:
            connection.exec_driver_sql(f"UPDATE {what} = {value} WHERE {'sequence' if 'ledger' in what else 'id'} = {number}")
        table = what.replace("ledger", "ledger entry").partition(" SET")[0]
        assert f"{table} {number} was changed" in lab.problems()
