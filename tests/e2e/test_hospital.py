"""Delivery against a hospital that is down, hangs, refuses, errs and answers wrongly: nothing lost, nothing out of order."""

import random
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Lasting
from tests.e2e.helpers import WBC, Lab, fresh, observations, specimen_of
from tests.support import END, START, field, his_ack, oru, wait_until

Own = Callable[..., Lab]

UNSUPPORTED = "ERR|||200^Unsupported message type^HL70357|E\r"


@pytest.fixture(scope="module")
def brisk(lasting: Lasting) -> Iterator[Lab]:
    """A shared daemon that waits 300 ms for the hospital."""
    with lasting(timeout="300ms") as lab:
        yield lab


def _state(lab: Lab, specimen: str) -> str:
    return str(lab.story(specimen, "delivery")[0]["state"])


def _outcomes(lab: Lab, specimen: str) -> list[str]:
    return [row["outcome"] for row in lab.story(specimen, "answer")]


def test_lims_down_at_start(own: Own) -> None:
    """The daemon starts and takes results while the hospital is down; all arrive when it comes, in order per specimen."""
    lab = own(hospital=False, repeat="latest-measured")
    specimens = [fresh() for _ in range(60)]
    with lab.hl7_client() as client:
        for version in range(1, 6):
            for specimen in specimens:
                wbc = ("6690-2^WBC^LN", f"{version}.50", "10*9/L")
                client.raw(START + oru(specimen, version, [wbc], f"202611211015{version:02d}") + END)
        for _ in range(300):
            assert b"MSA|AA" in client.answer()
    time.sleep(1.0)
    status = lab.status()["destinations"][0]
    assert status["queue"] == 300
    assert status["connections"] == 0
    assert status["oldest"] > 0.9
    listed = lab.rows("queue", "list", "--limit", "3")
    assert [row["behind"] for row in listed] == [4, 4, 4]
    lab.ward.start()
    wait_until(lambda: len(lab.ward.got()) >= 300, 20, "all arrive")
    versions = defaultdict(list)
    for _, message in lab.ward.got():
        versions[specimen_of(message)].append(observations(message)["H001"][5])
    assert dict(versions) == {specimen: ["1.50", "2.50", "3.50", "4.50", "5.50"] for specimen in specimens}
    wait_until(lambda: lab.status()["destinations"][0]["queue"] == 0, 5, "the queue is empty")
    log = lab.log.read_text()
    assert log.count("destination is down") == 1
    assert log.count("destination is back") == 1


def test_lims_down_at_auth(own: Own) -> None:
    """A hospital that takes the connection and ends it at once is tried again and again, and gets everything when it talks."""
    lab = own(hospital=False)
    turned_away = 0
    specimen = fresh()
    with socket.create_server(("127.0.0.1", lab.his)) as door:
        door.settimeout(60)
        lab.tell(specimen)
        while turned_away < 3:
            door.accept()[0].close()
            turned_away += 1
    lab.ward.start()
    lab.ward.wait(specimen)
    assert lab.log.read_text().count("destination is down") == 1


def test_promise_2_a_message_sent_again_has_the_same_id_and_the_same_bytes(own: Own) -> None:
    """No answer, a lost connection, kill -9: each time the same message comes again, unchanged.

    # conformance: C18.
    """
    lab = own(timeout="300ms")
    specimen, silent = fresh(), [True]

    def plan(message: bytes, before: int) -> str | None:
        if before == 1:
            raise ConnectionError
        return None if silent[0] else "AA"

    lab.ward.plans[specimen] = plan
    lab.tell(specimen)
    lab.ward.wait(specimen, 3)
    lab.kill()
    silent[0] = False
    lab.start()
    lab.ward.wait(specimen, 4)
    wait_until(lambda: _state(lab, specimen) == "delivered", 5, "delivered")
    assert len(set(lab.ward.of(specimen))) == 1
    assert _outcomes(lab, specimen) == ["accepted AA"]


def test_promise_6_without_an_answer_no_attempt_counts(own: Own) -> None:
    """submit_failed_not_synced: what was not answered stays queued, with no attempt counted, however often it was sent."""
    lab = own(timeout="300ms")
    specimen, awake = fresh(), []
    lab.ward.plans[specimen] = lambda message, before: "AA" if awake else None
    lab.tell(specimen)
    lab.ward.wait(specimen, 4)
    [row] = lab.queue(specimen)
    assert (row["state"], row["attempts"]) == ("queued", 0)
    awake.append(True)
    wait_until(lambda: _state(lab, specimen) == "delivered", 5, "delivered")


@pytest.mark.parametrize("how", ["hangs", "drops"])
def test_a_message_that_the_hospital_cannot_stand_does_not_keep_the_others_back(own: Own, how: str) -> None:
    lab = own(timeout="300ms", changes=[("connections = 4", "connections = 1")])
    poison, others = fresh(), [fresh() for _ in range(10)]

    def plan(message: bytes, before: int) -> str | None:
        if how == "drops":
            raise ConnectionError
        return None

    lab.ward.plans[poison] = plan
    with lab.hl7_client() as client:
        for specimen in (poison, *others):
            assert b"MSA|AA" in client.send(oru(specimen, 1, [WBC]))
    for specimen in others:
        lab.ward.wait(specimen, seconds=8)
    assert _state(lab, poison) == "queued"
    assert "cancelled" in lab.well("queue", "cancel", str(lab.queue(poison)[0]["id"]), "--reason", "it hangs the hospital")
    assert not lab.queue()
    wait_until(lambda: lab.status()["destinations"][0]["queue"] == 0, 5, "the queue in memory is empty too")
    count = len(lab.ward.of(poison))
    last = fresh()
    lab.tell(last)
    lab.ward.wait(last)
    assert len(lab.ward.of(poison)) <= count + 1
    assert _state(lab, poison) == "cancelled"


def test_a_refused_message_blocks_its_lane_alone_until_a_person_retries(own: Own) -> None:
    """AE is refused only after tries that count; the lane waits, others go on; a retry sends the same bytes, in order."""
    lab = own(repeat="latest-measured", extra="[destination.answers]\ntries = 2\n")
    bad, well = fresh(), [True]
    lab.ward.plans[bad] = lambda message, before: "AA" if not well[0] else "AE"
    lab.tell(bad)
    lab.tell(bad, ("6690-2^WBC^LN", "6.50", "10*9/L"), stamp="20261121111500")
    wait_until(lambda: len(_outcomes(lab, bad)) >= 2, 5, "two answers")
    assert _outcomes(lab, bad)[:2] == ["again AE", "again AE"], "nothing else was accepted: the second did not count"
    assert [row["state"] for row in lab.queue(bad)] == ["queued", "queued"]
    other = fresh()
    lab.tell(other)
    lab.ward.wait(other)
    wait_until(lambda: lab.queue(bad)[0]["state"] == "refused", 6, "refused")
    first, second = lab.queue(bad)
    assert (first["behind"], first["answer"], second["state"]) == (1, "refused AE", "queued")
    assert "1 behind" in lab.well("queue", "list")
    assert lab.status()["destinations"][0]["refused"] == 1
    another = fresh()
    lab.tell(another)
    lab.ward.wait(another)
    assert {field(message, b"OBX", 5) for _, message in lab.ward.of(bad)} == {"5.50"}, "nothing overtook it"
    well[0] = False
    lab.well("queue", "retry", str(first["id"]), "--reason", "the hospital added the ward")
    wait_until(lambda: not lab.queue(), 5, "all delivered")
    assert [field(message, b"OBX", 5) for _, message in lab.ward.of(bad)][-2:] == ["5.50", "6.50"]
    assert len({message for _, message in lab.ward.of(bad)}) == 2
    assert [row["state"] for row in lab.story(bad, "delivery")] == ["delivered", "delivered"]


def test_a_refused_message_stays_refused_over_a_restart_and_a_cancelled_one_frees_its_lane(own: Own) -> None:
    lab = own(repeat="latest-measured", extra='[destination.answers]\nAR = "refuse"\n')
    bad = fresh()
    lab.ward.plans[bad] = lambda message, before: "AR" if before == 0 else "AA"
    lab.tell(bad)
    wait_until(lambda: lab.queue(bad)[0]["state"] == "refused", 5, "refused")
    lab.tell(bad, ("6690-2^WBC^LN", "6.50", "10*9/L"), stamp="20261121111500")
    lab.kill()
    lab.start()
    other = fresh()
    lab.tell(other)
    lab.ward.wait(other)
    first, second = lab.queue(bad)
    assert (first["state"], first["behind"], second["state"]) == ("refused", 1, "queued")
    status, said = lab.cli("queue", "cancel", str(first["id"]))
    assert (status, "reason" in said) == (1, True)
    lab.well("queue", "cancel", str(first["id"]), "-r", "told by telephone")
    lab.ward.wait(bad, 2)
    wait_until(lambda: not lab.queue(), 5, "the lane went on")
    assert [row["state"] for row in lab.story(bad, "delivery")] == ["cancelled", "delivered"]


def test_a_retry_of_what_a_later_measurement_overtook_is_superseded(own: Own) -> None:
    lab = own(extra='[destination.answers]\nAR = "refuse"\n')
    specimen = fresh()
    lab.ward.plans[specimen] = lambda message, before: "AA" if before != 1 else "AR"
    lab.tell(specimen, ("6690-2^WBC^LN", "7.00", "10*9/L"), stamp="20261121114500")
    lab.ward.wait(specimen)
    lab.tell(specimen, ("6690-2^WBC^LN", "5.00", "10*9/L"), stamp="20261121101500")
    wait_until(lambda: lab.held(specimen), 5, "held")
    lab.well("release", specimen, "--correction", "--reason", "the first was wrong")
    wait_until(lambda: [row["state"] for row in lab.queue(specimen)] == ["refused"], 5, "refused")
    number = str(lab.queue(specimen)[0]["id"])
    assert "superseded" in lab.well("queue", "retry", number, "--reason", "try")
    assert not lab.queue(specimen)
    assert len(lab.ward.of(specimen)) == 2
    last = fresh()
    lab.tell(last)
    lab.ward.wait(last)


def test_ar_is_tried_again_and_unsupported_is_refused_at_once(shared: Lab) -> None:
    """# conformance: C19."""
    busy, never = fresh(), fresh()
    shared.ward.plans[busy] = lambda message, before: "AR" if before == 0 else "AA"
    shared.ward.plans[never] = lambda message, before: START + his_ack("AR", field(message, b"MSH", 9), UNSUPPORTED) + END
    shared.tell(busy)
    shared.tell(never)
    wait_until(lambda: _outcomes(shared, never) == ["refused AR"], 5, "refused at once")
    shared.ward.wait(busy, 2)
    wait_until(lambda: _outcomes(shared, busy) == ["again AR", "accepted AA"], 5, "accepted in the end")
    assert len(set(shared.ward.of(busy))) == 1
    shared.well("queue", "cancel", str(shared.queue(never)[0]["id"]), "-r", "test")


def test_late_ack_other_message(own: Own) -> None:
    """An acknowledgement of another message settles nothing: neither the one in flight nor the one that it names."""
    lab = own(timeout="700ms", changes=[("connections = 4", "connections = 1")])
    early, late = fresh(), fresh()
    ids: dict[str, str] = {}
    well: list[bool] = []

    def silent(message: bytes, before: int) -> str | None:
        ids[early] = field(message, b"MSH", 9)
        return "AA" if well else None

    def answered_for_the_other(message: bytes, before: int) -> str | bytes:
        return "AA" if well else START + his_ack("AA", ids[early]) + END

    lab.ward.plans = {early: silent, late: answered_for_the_other}
    lab.tell(early)
    lab.ward.wait(early)
    lab.tell(late)
    lab.ward.wait(late)
    wait_until(lambda: "belongs to no message in flight" in lab.log.read_text(), 5, "the answer is passed over")
    assert _outcomes(lab, early) == _outcomes(lab, late) == []
    assert {_state(lab, early), _state(lab, late)} == {"queued"}
    well.append(True)
    wait_until(lambda: not lab.queue(), 10, "both delivered, each by its own answer")
    assert _outcomes(lab, early) == _outcomes(lab, late) == ["accepted AA"]


@pytest.mark.parametrize(
    "wrong",
    [
        START + b"MSH|^~\\&|HIS\rMSA|AA|\r" + END,
        START + b"MSH|^~\\&|HIS\rMSA|AA|OTHER\r" + END,
        START + b"MSH|^~\\&|HIS\r" + END,
        START + b"MSH|^~\\&|HIS\rMSA|OK|{id}\r" + END,
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        START + b"\xff\xfe\x00" + END,
    ],
    ids=["no id", "another id", "no MSA", "unknown code", "not MLLP", "garbage"],
)
def test_an_answer_that_is_none_settles_nothing(brisk: Lab, wrong: bytes) -> None:
    specimen = fresh()

    def plan(message: bytes, before: int) -> str | bytes:
        return wrong.replace(b"{id}", field(message, b"MSH", 9).encode()) if before == 0 else "AA"

    brisk.ward.plans[specimen] = plan
    brisk.tell(specimen)
    brisk.ward.wait(specimen, 2)
    wait_until(lambda: _state(brisk, specimen) == "delivered", 5, "delivered")
    assert _outcomes(brisk, specimen) == ["accepted AA"]


def test_promise_3_order_holds_through_every_fault_of_the_hospital(own: Own) -> None:
    """Errors, rejections, silence, lost connections and wrong answers at random: all arrives, in order per specimen."""
    lab = own(timeout="300ms", repeat="latest-measured", extra='[destination.answers]\nAE = "retry"\n')
    chance, specimens = random.Random(3), [fresh() for _ in range(30)]
    faults: list[str | bytes | None] = ["AE", "AR", None, START + his_ack("AA", "OTHER") + END, "drop"]

    def plan(message: bytes, before: int) -> str | bytes | None:
        fault = chance.choice(faults) if chance.random() < 0.15 else "AA"
        if fault == "drop":
            raise ConnectionError
        return fault

    lab.ward.plans = dict.fromkeys(specimens, plan)
    with lab.hl7_client() as client:
        for version in range(1, 5):
            for specimen in specimens:
                wbc = ("6690-2^WBC^LN", f"{version}.50", "10*9/L")
                client.raw(START + oru(specimen, version, [wbc], f"2026112110150{version}") + END)
                assert b"MSA|AA" in client.answer()
    wait_until(lambda: lab.status()["destinations"][0]["queue"] == 0, 30, "all delivered")
    for specimen in specimens:
        arrived = list(dict.fromkeys(lab.ward.of(specimen)))
        assert [observations(message)["H001"][5] for _, message in arrived] == ["1.50", "2.50", "3.50", "4.50"]


def test_many_refusals_in_a_row_pause_the_destination_until_it_is_resumed(own: Own) -> None:
    """# conformance: C19."""
    lab = own(extra='[destination.answers]\nAR = "refuse"\npause_after = 3\n')
    specimens = [fresh() for _ in range(5)]
    for specimen in specimens:
        lab.ward.plans[specimen] = lambda message, before: "AR" if before == 0 else "AA"
    for specimen in specimens[:3]:
        lab.tell(specimen)
    wait_until(lambda: lab.status()["destinations"][0]["paused"], 5, "paused")
    for specimen in specimens[3:]:
        lab.ward.plans.pop(specimen)
        lab.tell(specimen)
    time.sleep(0.2)
    assert not lab.ward.of(specimens[4])
    assert "destination paused" in lab.log.read_text()
    lab.well("queue", "resume", "his")
    lab.ward.wait(specimens[4])
    lab.well("queue", "retry", "--all", "-r", "the hospital is well again")
    wait_until(lambda: not lab.queue(), 5, "all delivered")
    lab.well("queue", "pause", "his")
    held_back = fresh()
    lab.tell(held_back)
    time.sleep(0.2)
    assert not lab.ward.of(held_back)
    lab.well("queue", "resume", "his")
    lab.ward.wait(held_back)


def test_a_queue_of_thousands_drains_after_a_restart(own: Own) -> None:
    """What waits is read back a few at a time; draining costs no more per message for a long queue."""
    lab = own(hospital=False)
    with lab.hl7_client() as client:
        for batch in range(30):
            sent = [oru(fresh(), number, [WBC]) for number in range(100)]
            client.raw(b"".join(START + message + END for message in sent))
            for _ in sent:
                assert b"MSA|AA" in client.answer(), batch
    lab.kill()
    lab.start()
    assert lab.status()["destinations"][0]["queue"] == 3000
    lab.ward.start()
    wait_until(lambda: lab.status()["destinations"][0]["queue"] == 0, 30, "the queue drains")
    assert len({control_id for control_id, _ in lab.ward.got()}) == 3000
