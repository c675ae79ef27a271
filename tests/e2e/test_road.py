"""The road from analyzer to hospital: what goes in, what comes out, and what must never come out."""

import re
import socket
from collections.abc import Callable

import pytest

from labbridge.formats.validity import validity
from tests.e2e.helpers import RBC, UNKNOWN, WBC, Lab, Ward, fresh, observations, specimen_of, why
from tests.support import ACK, END, ENQ, START, astm, field, frame, oru, wait_until

Own = Callable[..., Lab]

SECRETS = ("Featherstonehaugh", "Zebedee", "ZQ7731904", "19310214")


def test_hl7_results_arrive_mapped_and_what_is_unmapped_is_held_alone(shared: Lab) -> None:
    specimen = fresh()
    with shared.hl7_client() as client:
        answer = client.send(oru(specimen, 4711, [WBC, UNKNOWN, ("718-7^HGB^LN", "13.55", "g/dL"), RBC]))
    assert field(answer, b"MSA", 1) == "AA"
    assert field(answer, b"MSA", 2) == "4711"
    [(control_id, message)] = shared.ward.wait(specimen)
    assert re.fullmatch("[0-9A-V]{20}", control_id)
    assert field(message, b"MSH", 8) == "ORU^R01^ORU_R01"
    assert validity(message) == "valid"
    found = observations(message)
    assert sorted(found) == ["H001", "H024", "H025"]
    assert found["H001"][3] == "H001^Leukocytes^L^6690-2^^LN"
    assert (found["H001"][5], found["H001"][6]) == ("5.50", "10*9/L^^UCUM")
    assert (found["H025"][5], found["H025"][6]) == ("136", "g/L^^UCUM"), "13.55 g/dL is 135.5 g/L, rounded once, half up"
    [held] = shared.held(specimen)
    assert [one["code"] for one in held["results"]] == ["99999"]
    assert shared.reasons(specimen) == {"unmapped"}


def test_astm_results_arrive_mapped_and_what_is_unmapped_is_held_alone(shared: Lab) -> None:
    specimen = fresh()
    results = [("WBC", "4.37", "10*3/uL"), ("NEW#", "1", "10*3/uL"), ("RBC", "4.10", "10*6/uL")]
    with shared.astm_client() as client:
        assert client.send(astm(specimen, results))
    [(_, message)] = shared.ward.wait(specimen)
    assert validity(message) == "valid"
    found = observations(message)
    assert found["H001"][5] == "4.37"
    assert found["H001"][6] == "10*9/L^^UCUM"
    assert len(found) == 2
    assert shared.reasons(specimen) == {"unmapped"}
    assert [row["state"] for row in shared.story(specimen, "delivery")] == ["delivered"]


def test_a_message_in_one_frame_or_in_frames_cut_anywhere_is_the_same_message(shared: Lab) -> None:
    for size in (100_000, 7):
        specimen = fresh()
        text = "".join(record + "\r" for record in astm(specimen, [("WBC", "4.37", "10*3/uL")])).encode()
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        with shared.astm_client() as client:
            assert client.raw(ENQ) == ACK
            for number, piece in enumerate(pieces, 1):
                end = b"\x03" if number == len(pieces) else b"\x17"
                assert client.raw(frame(number, piece, end)) == ACK
            client.end()
        [(_, message)] = shared.ward.wait(specimen)
        assert observations(message)["H001"][5] == "4.37"


@pytest.mark.parametrize(
    ("accept", "application", "codes"),
    [("", "", ["AA"]), ("AL", "NE", ["CA"]), ("NE", "AL", ["AA"]), ("AL", "AL", ["CA", "AA"]), ("NE", "NE", []), ("ER", "ER", [])],
)
def test_acknowledgements_are_those_that_the_sender_asked_for(shared: Lab, accept: str, application: str, codes: list[str]) -> None:
    specimen, last = fresh(), fresh()
    message = oru(specimen, 5, [WBC]).replace(b"|2.3.1||||||", f"|2.3.1|||{accept}|{application}||".encode())
    with shared.hl7_client() as client:
        client.raw(b"\x0b" + message + b"\x1c\r")
        client.raw(b"\x0b" + oru(last, 6, [WBC]) + b"\x1c\r")
        answers = [client.answer() for _ in range(len(codes) + 1)]
    assert [(field(answer, b"MSA", 1), field(answer, b"MSA", 2)) for answer in answers] == [*((c, "5") for c in codes), ("AA", "6")]
    shared.ward.wait(specimen)
    shared.ward.wait(last)


def test_a_query_for_orders_is_answered_no_order(shared: Lab) -> None:
    header = "H|\\^&|||XN-1000^00-22^11001^^^^AB123456||||||||E1394-97"
    with shared.astm_client() as client:
        assert client.send([header, "Q|1|12^4^            7011110043^B||||20261118091522", "L|1|N"])
        answer = client.receive()
    assert [record.split("|")[0] for record in answer] == ["H", "L"]
    assert answer[-1] == "L|1|I"


def test_promise_4_text_is_kept_and_no_value_unit_or_flag_is_invented(shared: Lab) -> None:
    specimen = fresh()
    results = [("6690-2^WBC^LN", "<0.01", "10*9/L"), ("789-8^RBC^LN", "abc", "10*12/L"), ("777-3^PLT^LN", "", "10*9/L")]
    shared.tell(specimen, *results, ("718-7^HGB^LN", "***.**", "g/L"), ("4544-3^HCT^LN", "41.25", ""))
    wait_until(lambda: shared.held(specimen), 5, "held")
    reasons = {one["test"]: {reason["code"] for reason in why(one)} for one in shared.held(specimen)[0]["results"]}
    assert reasons.pop("RBC") == {"not-a-number"}
    assert reasons.pop("HGB") == {"no-result"}
    assert "PLT" not in reasons, "an empty value that nobody remarked on is no result, and is not reported"
    delivered = [row for one in shared.ward.of(specimen) for row in observations(one[1])]
    assert not {"H027", "H025"} & set(delivered)


SECOND = """
[[destination]]
name = "ward"
connect = "127.0.0.1:{spare3}"

[destination.oru]
version = "2.3.1"
charset = "ISO-8859-1"
obr = "test"

[[route]]
to = "ward"
tests = ["RBC"]
"""


def test_two_destinations_each_get_their_own_and_one_that_is_down_holds_the_other_up_in_nothing(own: Own) -> None:
    lab = own(extra=SECOND)
    specimen = fresh()
    lab.tell(specimen, WBC, RBC)
    [(_, message)] = lab.ward.wait(specimen)
    assert sorted(observations(message)) == ["H001", "H024"]
    assert [(row["destination"], row["state"]) for row in lab.queue()] == [("ward", "queued")]
    with Ward(lab.ports["spare3"]) as ward:
        [(_, message)] = ward.wait(specimen)
        assert list(observations(message)) == ["RBC"]
        assert validity(message) == "valid"
        wait_until(lambda: not lab.queue(), 5, "nothing waits")
        unwritable = fresh()
        with lab.hl7_client() as client:
            client.send(oru(unwritable, 1, [RBC]).replace(b"DOE^JO", "李^雷".encode()))
        wait_until(lambda: lab.reasons(unwritable) == {"unwritable-charset"}, 5, "held")
        status, said = lab.cli("release", unwritable, "--reason", "x")
        assert (status, "cannot be written" in said) == (1, True)
        assert not ward.of(unwritable)


def test_an_analyzer_that_waits_for_us_is_connected_to_again_and_again(own: Own) -> None:
    """connect instead of listen: results come over the connection that the daemon makes, and over the next one."""
    lab = own(changes=[('listen = "127.0.0.1:{hl7}"', 'connect = "127.0.0.1:{hl7}"')])
    for _ in range(2):
        specimen = fresh()
        with socket.create_server(("127.0.0.1", lab.hl7)) as server:
            server.settimeout(60)
            with server.accept()[0] as analyzer:
                analyzer.settimeout(60)
                analyzer.sendall(START + oru(specimen, 1, [WBC]) + END)
                assert b"MSA|AA|1" in analyzer.recv(4096)
        lab.ward.wait(specimen)


def test_no_state_is_shared_between_analyzers(shared: Lab) -> None:
    """The same bytes from another analyzer are no duplicate: it is the same test measured again, and held."""
    specimen = fresh()
    shared.tell(specimen)
    shared.ward.wait(specimen)
    with shared.hl7_client(shared.plain_hl7) as client:
        assert b"MSA|AA" in client.send(oru(specimen, 1, [WBC]))
    wait_until(lambda: shared.reasons(specimen) == {"repeat"}, 5, "held")
    assert [row["kind"] for row in shared.story(specimen, "message")] == ["stored", "stored"]


CONTROLS = {
    "MSH-11 Q": (False, lambda s: oru(s, 1, [WBC]).replace(b"|P|2.3.1", b"|Q|2.3.1")),
    "MSH-11 T": (False, lambda s: oru(s, 1, [WBC]).replace(b"|P|2.3.1", b"|T|2.3.1")),
    "MSH-11 unknown": (False, lambda s: oru(s, 1, [WBC]).replace(b"|P|2.3.1", b"|X|2.3.1")),
    "OBR-4 a QC run": (False, lambda s: oru(s, 1, [WBC]).replace(b"00001^Automated Count", b"00003^LJ QCR")),
    "O-12 Q": (True, lambda s: [r.replace("|||||||N||||", "|||||||Q||||") for r in astm(s, [("WBC", "5.10", "10*3/uL")])]),
    "H-12 Q": (True, lambda s: [r.replace("||||||||E1394", "|||||||Q|E1394") for r in astm(s, [("WBC", "5.10", "10*3/uL")])]),
    "id QC-": (True, lambda s: astm(f"QC-{s}", [("WBC", "5.10", "10*3/uL")])),
    "background": (True, lambda s: astm("BACKGROUNDCHECK", [("WBC", "0.01", "10*3/uL")])),
}


@pytest.mark.parametrize("mark", CONTROLS)
def test_promise_7_controls_calibrators_blanks_and_tests_never_reach_the_hospital(shared: Lab, mark: str) -> None:
    is_astm, make = CONTROLS[mark]
    specimen, after = fresh(), fresh()
    before = len(shared.ward.got())
    if is_astm:
        with shared.astm_client() as client:
            assert client.send(make(specimen))
            assert client.send(astm(after, [("WBC", "5.00", "10*3/uL")]))
    else:
        with shared.hl7_client() as client:
            assert b"MSA|AA" in client.send(make(specimen))
            assert b"MSA|AA" in client.send(oru(after, 2, [WBC]))
    shared.ward.wait(after)
    assert [specimen_of(message) for _, message in shared.ward.got()[before:]] == [after]


def test_promise_7_an_id_that_the_laboratory_names_a_control_never_reaches_the_hospital(shared: Lab) -> None:
    after = fresh()
    with shared.hl7_client(shared.plain_hl7) as client:
        assert b"MSA|AA" in client.send(oru("990042", 1, [WBC]))
        assert b"MSA|AA" in client.send(oru(after, 2, [WBC]))
    shared.ward.wait(after)
    assert not shared.ward.of("990042")
    [report] = shared.story("990042", "report")
    assert (report["role"], report["state"]) == ("qc", "kept")
    status, said = shared.cli("release", "990042", "--reason", "by mistake")
    assert status == 1, said
    assert not shared.ward.of("990042")


def test_promise_10_no_patient_data_in_the_log_or_the_metrics(shared: Lab) -> None:
    specimen = f"ZQ99{fresh()}"
    message = oru(specimen, 1, [WBC, UNKNOWN], "20261121101500")
    message = message.replace(b"P1^^^^MR", b"ZQ7731904^^^^MR").replace(b"DOE^JO||19800101", b"Featherstonehaugh^Zebedee||19310214")
    broken = message.replace(b"|ORU^R01|", b"||").replace(b"UNICODE", b"UNI")
    shared.ward.plans[specimen] = lambda message, before: "AE" if before == 0 else "AA"
    with shared.hl7_client() as client:
        client.send(message)
        client.send(broken)
        client.raw(b"\x0b" + message[:150])
    with shared.hl7_client() as client:
        client.raw(message)
    with shared.astm_client() as client:
        records = astm(specimen, [("WBC", "7.5", "10*3/uL")])
        client.send([record.replace("DOE^JO||19800101", "Featherstonehaugh^Zebedee||19310214") for record in records])
        client.raw(b"\x05")
    shared.ward.wait(specimen, 2)
    wait_until(lambda: len(shared.held(specimen)) == 2, 5, "both are held in part")
    shared.well("release", specimen, "--test", "WBC", "--reason", "seen Featherstonehaugh")
    metrics = shared.get("/metrics").decode()
    assert "labbridge_messages_total" in metrics
    told = shared.log.read_text() + metrics + shared.get("/healthz").decode()
    assert "unreadable" in metrics
    for secret in (*SECRETS, specimen):
        assert secret not in told


def test_metrics_and_health_tell_how_things_stand(shared: Lab) -> None:
    def metric(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", shared.get("/metrics").decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    stored = 'labbridge_messages_total{analyzer="bc-1",kind="stored"}'
    released = 'labbridge_reports_total{analyzer="bc-1",state="released"}'
    before, before_released = metric(stored), metric(released)
    specimen = fresh()
    shared.tell(specimen)
    shared.ward.wait(specimen)
    wait_until(lambda: metric(stored) == before + 1, 2, "one message more")
    assert metric(released) == before_released + 1
    wait_until(lambda: metric('labbridge_queue{destination="his"}') == 0, 2, "nothing waits")
    status = shared.status()
    assert status["store"] == "ready"
    assert [one["name"] for one in status["destinations"]] == ["his"]
    assert status["destinations"][0]["connections"] == 4
