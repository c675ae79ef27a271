"""The traps of other systems that need the whole daemon, each a test by its name."""

import base64
import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from labbridge.store.schema import metadata
from tests.e2e.conftest import Lasting
from tests.e2e.helpers import RBC, WBC, Lab, fresh, observations, specimen_of, taken, why
from tests.store.postgres import Server
from tests.store.support import behind
from tests.support import ACK, END, ENQ, NAK, START, AstmClient, astm, field, frame, only, oru, wait_until

Own = Callable[..., Lab]


def wbc(value: str) -> tuple[str, str, str]:
    return ("6690-2^WBC^LN", value, "10*9/L")


@pytest.fixture(scope="module")
def latest(lasting: Lasting) -> Iterator[Lab]:
    """A shared daemon where a later measurement of the same test is sent without asking."""
    with lasting(repeat="latest-measured") as lab:
        yield lab


@contextmanager
def store_locked(lab: Lab) -> Iterator[None]:
    """Another program keeps the right to write to the SQLite file, or to the tables."""
    with behind(lab.url) as other:
        if other.dialect.name == "postgresql":
            other.exec_driver_sql(f"LOCK TABLE {', '.join(metadata.tables)} IN EXCLUSIVE MODE")
        yield


@contextmanager
def store_failing(lab: Lab, request: pytest.FixtureRequest) -> Iterator[None]:
    """What is to be stored fails: the SQLite file stays locked for longer than the daemon waits, the server is stopped."""
    if lab.url.startswith("sqlite"):
        with store_locked(lab):
            yield
        return
    server: Server = request.getfixturevalue("postgresql_server")
    server.stop()
    try:
        yield
    finally:
        server.start()
    wait_until(lambda: lab.status()["store"] == "ready", 15, "the connection is made again")


# -- acknowledgement and storage


def test_ack_before_store(own: Own) -> None:
    """While the store cannot commit there is no acknowledgement; it comes when the message is stored."""
    lab = own()
    specimen = fresh()
    with lab.hl7_client() as client:
        with store_locked(lab):
            client.raw(START + oru(specimen, 1, [WBC]) + END)
            time.sleep(0.8)
            if client.waiting():  # of a busy machine: the store waits no longer
                assert field(client.answer(), b"MSA", 1) == "AE"
                client.raw(START + oru(specimen, 1, [WBC]) + END)
        taken(client, oru(specimen, 1, [WBC]))
    lab.ward.wait(specimen)


@only("sqlite", "its file is locked")
def test_reject_for_transient_fault(own: Own) -> None:
    """A store that is locked for long is AE and NAK, never AR; the same message is taken once it is well."""
    lab = own()
    specimen, other = fresh(), fresh()
    records = astm(other, [("WBC", "5.00", "10*3/uL")])
    with lab.hl7_client() as client, lab.astm_client() as line:
        with store_locked(lab):
            client.raw(START + oru(specimen, 1, [WBC]) + END)
            assert line.raw(ENQ) == ACK
            first = frame(1, records[0].encode() + b"\r")
            assert line.raw(first) == NAK
            assert field(client.answer(), b"MSA", 1) == "AE"
        assert line.raw(first) == ACK
        for number, record in enumerate(records[1:], 2):
            assert line.raw(frame(number, record.encode() + b"\r")) == ACK
        line.end()
        assert field(client.send(oru(specimen, 1, [WBC])), b"MSA", 1) == "AA"
    lab.ward.wait(specimen)
    lab.ward.wait(other)
    assert not lab.rows("pending")


@only("postgresql", "its server is stopped")
def test_reject_for_transient_fault_of_the_database_server(own: Own, postgresql_server: Server) -> None:
    """The database server goes away under load: AE and NAK until it is back, then all is taken and delivered."""
    lab = own()
    before, during, other = fresh(), fresh(), fresh()
    with lab.hl7_client() as client, lab.astm_client() as line:
        assert field(client.send(oru(before, 1, [WBC])), b"MSA", 1) == "AA"
        postgresql_server.stop()
        try:
            assert field(client.send(oru(during, 1, [WBC])), b"MSA", 1) == "AE"
            assert not line.send(astm(other, [("WBC", "5.00", "10*3/uL")]))
            assert b" 503 " in lab.get("/healthz")[:64]
        finally:
            postgresql_server.start()
        wait_until(lambda: field(client.send(oru(during, 1, [WBC])), b"MSA", 1) == "AA", 15, "taken again")
        assert line.send(astm(other, [("WBC", "5.00", "10*3/uL")]))
    for specimen in (before, during, other):
        lab.ward.wait(specimen)
    assert "as written" in lab.well("verify")
    assert lab.stop() == 0


@only("sqlite", "the limit is that of the daemon's own files")
def test_disk_full_no_ack(own: Own) -> None:
    """With a full disk nothing is acknowledged, the daemon stays alive (though it cannot log), and goes on when there is room.

    # conformance: C16.
    """
    lab = own()
    assert lab.process is not None
    specimen, other = fresh(), fresh()
    with lab.hl7_client() as client, lab.astm_client() as line:
        assert field(client.send(oru(fresh(), 1, [WBC])), b"MSA", 1) == "AA"
        resource.prlimit(lab.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        for _ in range(3):
            assert field(client.send(oru(specimen, 1, [WBC])), b"MSA", 1) == "AE"
        assert not line.send(astm(other, [("WBC", "5.00", "10*3/uL")]))
        resource.prlimit(lab.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_until(lambda: field(client.send(oru(specimen, 1, [WBC])), b"MSA", 1) == "AA", 5, "taken again")
        assert line.send(astm(other, [("WBC", "5.00", "10*3/uL")]))
    lab.ward.wait(specimen)
    lab.ward.wait(other)
    assert "as written" in lab.well("verify")


def test_crash_in_processing(own: Own) -> None:
    """Killed with messages in flight on both sides, nothing stays "in processing": all that was acknowledged arrives."""
    lab = own()
    specimens, silent = [fresh() for _ in range(40)], [True]
    lab.ward.plans = {specimen: lambda message, before: None if silent[0] else "AA" for specimen in specimens}
    with lab.hl7_client() as client:
        for specimen in specimens:
            client.raw(START + oru(specimen, 1, [WBC]) + END)
        acknowledged = [specimen for specimen in specimens[:20] if field(client.answer(), b"MSA", 1) == "AA"]
        assert len(acknowledged) == 20
        wait_until(lambda: len(lab.ward.got()) == 4, 5, "four are in flight")
        lab.kill()
    silent[0] = False
    lab.start()
    for specimen in acknowledged:
        lab.ward.wait(specimen)
    wait_until(lambda: not lab.queue(), 10, "nothing waits")
    assert {row["state"] for specimen in acknowledged[::5] for row in lab.story(specimen, "delivery")} == {"delivered"}


def test_outage_longer_than_retries(own: Own) -> None:
    """Fifteen lost connections in a row do not make a message fail, nor count as attempts."""
    lab = own(timeout="1s")
    specimen = fresh()

    def plan(message: bytes, before: int) -> str | bytes:
        if before < 15:
            raise ConnectionError
        return "AA"

    lab.ward.plans[specimen] = plan
    lab.ward.greeting = b"\r"  # heard, so that the connection is made again soon
    lab.tell(specimen)
    lab.ward.wait(specimen, 16, seconds=20)
    wait_until(lambda: not lab.queue(), 5, "delivered")
    assert [row["outcome"] for row in lab.story(specimen, "answer")] == ["accepted AA"]
    assert len(set(lab.ward.of(specimen))) == 1


def test_submit_failed_not_synced(own: Own) -> None:
    """A message that could not be handed over is never marked as delivered."""
    lab = own(hospital=False)
    specimen = fresh()
    lab.tell(specimen)
    assert [row["state"] for row in lab.story(specimen, "delivery")] == ["queued"]

    up: list[bool] = []

    def plan(message: bytes, before: int) -> str:
        if not up:
            raise ConnectionError
        return "AA"

    lab.ward.plans[specimen] = plan
    lab.ward.start()
    lab.ward.wait(specimen)
    assert [row["state"] for row in lab.story(specimen, "delivery")] == ["queued"]
    up.append(True)
    wait_until(lambda: [row["state"] for row in lab.story(specimen, "delivery")] == ["delivered"], 10, "delivered")


def test_answers_out_of_order(shared: Lab) -> None:
    """Fifty messages of all kinds sent without waiting are answered in their order."""
    kinds = [b"|ORU^R01|", b"||", b"|ADT^A01|", b"|ORU^R99|"]
    with shared.hl7_client() as client:
        for number in range(50):
            results = [WBC] * (1 if number % 7 else 300)
            message = oru(fresh(), number, results).replace(b"|ORU^R01|", kinds[number % len(kinds)])
            client.raw(START + message + END)
        assert [field(client.answer(), b"MSA", 2) for _ in range(50)] == [str(number) for number in range(50)]


# -- identity


def test_two_messages_same_second(shared: Lab) -> None:
    """Messages of one second, with one control id for all, are as many messages as were sent."""
    specimens = [fresh() for _ in range(20)]
    with shared.hl7_client() as client, shared.astm_client() as line:
        for specimen in specimens[:10]:
            assert field(client.send(oru(specimen, 1, [WBC])), b"MSA", 1) == "AA"
        for specimen in specimens[10:]:
            assert line.send(astm(specimen, [("WBC", "5.50", "10*3/uL")]))
    for specimen in specimens:
        assert len(shared.ward.wait(specimen)) == 1


def test_the_same_message_again_is_stored_as_a_duplicate_and_not_sent_again(shared: Lab) -> None:
    specimen, other, last = fresh(), fresh(), fresh()
    for _ in range(3):
        shared.tell(specimen)
        with shared.astm_client() as line:
            assert line.send(astm(other, [("WBC", "5.50", "10*3/uL")]))
    shared.tell(last)
    shared.ward.wait(last)
    assert len(shared.ward.of(specimen)) == len(shared.ward.of(other)) == 1
    assert len(shared.story(specimen, "report")) == len(shared.story(other, "report")) == 1
    assert not shared.held(specimen)


def test_value_a_b_a(latest: Lab) -> None:
    """A correction back to the first value is a third version, though its bytes are those of the first."""
    specimen = fresh()
    for value in ("5.10", "5.90", "5.10"):
        latest.tell(specimen, wbc(value))
    arrived = latest.ward.wait(specimen, 3)
    assert [observations(message)["H001"][5] for _, message in arrived] == ["5.10", "5.90", "5.10"]
    assert [observations(message)["H001"][11] for _, message in arrived] == ["F", "C", "C"]
    other = fresh()
    with latest.astm_client() as line:
        for value in ("5.10", "5.90", "5.10"):
            assert line.send(astm(other, [("WBC", value, "10*3/uL")]))
    assert [observations(message)["H001"][5] for _, message in latest.ward.wait(other, 3)] == ["5.10", "5.90", "5.10"]


def test_second_test_same_specimen(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, WBC)
    shared.tell(specimen, RBC)
    first, second = shared.ward.wait(specimen, 2)
    assert [sorted(observations(message)) for _, message in (first, second)] == [["H001"], ["H024"]]


def test_rerun_same_test(shared: Lab, latest: Lab) -> None:
    """The same test again, even with the same value, is a result of its own: held, or sent as a correction."""
    specimen = fresh()
    for lab in (shared, latest):
        lab.tell(specimen, stamp="20261121101500")
        lab.ward.wait(specimen)
        lab.tell(specimen, stamp="20261121114500")
    wait_until(lambda: shared.reasons(specimen) == {"repeat"}, 5, "held")
    assert len(shared.ward.of(specimen)) == 1
    _, (_, again) = latest.ward.wait(specimen, 2)
    assert observations(again)["H001"][11] == "C"
    assert observations(again)["H001"][14].startswith("20261121114500")


def test_promise_3_an_older_measurement_never_overwrites_a_newer_one(latest: Lab) -> None:
    specimen, last = fresh(), fresh()
    latest.tell(specimen, wbc("7.00"), stamp="20261121114500")
    latest.ward.wait(specimen)
    latest.tell(specimen, wbc("5.00"), stamp="20261121101500")
    latest.tell(last)
    latest.ward.wait(last)
    assert len(latest.ward.of(specimen)) == 1
    assert [row["state"] for row in latest.story(specimen, "report")] == ["released", "superseded"]


def test_two_specimens_one_message(shared: Lab) -> None:
    """Each result goes to its own specimen, in either protocol."""
    one, two, three, four = (fresh() for _ in range(4))
    head, _, *_ = astm(one, [])
    records = [head]
    for number, (specimen, value) in enumerate(((one, "5.10"), (two, "6.20")), 1):
        body = astm(specimen, [("WBC", value, "10*3/uL")])[1:-1]
        records += [body[0].replace("P|1", f"P|{number}"), body[1], body[2]]
    with shared.astm_client() as line:
        assert line.send([*records, "L|1|N"])
    message = oru(three, 1, [wbc("7.30")])
    second = oru(four, 1, [wbc("8.40")]).split(b"\r", 2)[2]
    with shared.hl7_client() as client:
        assert field(client.send(message + second), b"MSA", 1) == "AA"
    for specimen, value in ((one, "5.10"), (two, "6.20"), (three, "7.30"), (four, "8.40")):
        [(_, sent)] = shared.ward.wait(specimen)
        assert (specimen_of(sent), observations(sent)["H001"][5]) == (specimen, value)


# -- content


def test_unknown_flag_value(shared: Lab) -> None:
    """A flag that nobody knows throws nothing away."""
    specimen = fresh()
    message = oru(specimen, 1, [WBC, RBC]).replace(b"|10*9/L||N||", b"|10*9/L||~ZZZ!~\xc2\xb5||")
    with shared.hl7_client() as client:
        assert field(client.send(message), b"MSA", 1) == "AA"
    [(_, sent)] = shared.ward.wait(specimen)
    assert sorted(observations(sent)) == ["H001", "H024"]


def test_ed_70k(shared: Lab) -> None:
    """A histogram of 70 KB beside the results is kept whole and holds nothing up."""
    specimen = fresh()
    picture = base64.b64encode(bytes(range(256)) * 280).decode()
    histogram = f"OBX|9|ED|15000^WBC Histogram. BMP^99MRC||^Image^BMP^Base64^{picture}||||||F\r"
    with shared.hl7_client() as client:
        assert field(client.send(oru(specimen, 1, [WBC]) + histogram.encode()), b"MSA", 1) == "AA"
    [(_, sent)] = shared.ward.wait(specimen)
    assert sorted(observations(sent)) == ["H001"]
    assert shared.story(specimen, "message")[0]["size"] > 95_000


def test_message_10mb(shared: Lab) -> None:
    specimen = fresh()
    picture = base64.b64encode(bytes(range(256)) * 30_000).decode()
    with shared.hl7_client() as client:
        histogram = f"OBX|9|ED|15000^x^99MRC||^Image^BMP^Base64^{picture}||||||F\r".encode()
        assert field(client.send(oru(specimen, 1, [WBC]) + histogram), b"MSA", 1) == "AA"
    [(_, sent)] = shared.ward.wait(specimen)
    assert sorted(observations(sent)) == ["H001"]
    assert shared.story(specimen, "message")[0]["size"] > 10_000_000


def test_no_msh9(shared: Lab) -> None:
    """A message that does not say its type is acknowledged and shown."""
    before = len(shared.messages("unreadable"))
    with shared.hl7_client() as client:
        assert field(client.send(oru(fresh(), 1, [WBC]).replace(b"|ORU^R01|", b"||")), b"MSA", 1) == "AA"
    assert len(shared.messages("unreadable")) == before + 1


def test_utf8_name_default_charset(shared: Lab) -> None:
    """A name in UTF-8 without a word about the character set arrives as it is."""
    specimen = fresh()
    message = oru(specimen, 1, [WBC]).replace(b"||||||UNICODE", b"").replace(b"DOE^JO", "Müller^李雷".encode())
    with shared.hl7_client() as client:
        assert field(client.send(message), b"MSA", 1) == "AA"
    [(_, sent)] = shared.ward.wait(specimen)
    assert field(sent, b"PID", 5) == "Müller^李雷"


def test_latin1_byte(shared: Lab) -> None:
    """A byte that is not of the character set: acknowledged, kept, and held rather than guessed."""
    specimen = fresh()
    message = oru(specimen, 1, [WBC]).replace(b"||||||UNICODE", b"").replace(b"DOE^JO", b"M\xfcller^Jo")
    with shared.hl7_client(shared.plain_hl7) as client:
        assert field(client.send(message), b"MSA", 1) == "AA"
    wait_until(lambda: "undecodable" in shared.reasons(specimen), 5, "held")
    assert not shared.ward.of(specimen)


def test_parse_error_no_neighbour_value(shared: Lab) -> None:
    """Beside results that cannot be read every other keeps its own value."""
    specimen = fresh()
    results = [
        ("6690-2^WBC^LN", "5.50", "10*9/L"),
        ("718-7^HGB^LN", "broken", "g/L"),
        ("", "7", "x"),
        ("789-8^RBC^LN", "4.50", "10*12/L"),
        ("777-3^PLT^LN", "*****", "10*9/L"),
        ("706-2^BAS%^LN", "0.5", "%"),
    ]
    message = oru(specimen, 1, results)
    lines = message.split(b"\r")
    lines[4] = lines[4].replace(b"|NM|", b"|ZZ|")
    lines.insert(6, b"OBX|")
    with shared.hl7_client() as client:
        assert field(client.send(b"\r".join(lines)), b"MSA", 1) == "AA"
    [(_, sent)] = shared.ward.wait(specimen)
    got = {code: fields[5] for code, fields in observations(sent).items()}
    assert got == {"H001": "5.50", "H024": "4.50", "H007": "0.5"} or set(got.values()) == {"5.50", "4.50", "0.5"}
    held = {one["code"]: [reason["code"] for reason in why(one)] for one in shared.held(specimen)[0]["results"]}
    assert held["718-7"] == ["not-a-number"]
    assert held["777-3"] == ["no-result"]


def test_a_frame_is_acknowledged_after_it_is_durable(own: Own) -> None:
    """Promise 1, for every single frame: while the store cannot commit, a frame is not acknowledged."""
    lab = own()
    first = frame(1, b"H|\\^&|||XN-1000\r")
    with closing(AstmClient(lab.astm)) as line:
        assert line.raw(ENQ) == ACK
        with store_locked(lab):
            line.write(first)
            time.sleep(0.8)
            if line.waiting():  # of a busy machine: the store waits no longer
                assert line.read() == NAK
                line.write(first)
        while (answer := line.read()) == NAK:
            line.write(first)
        assert answer == ACK
    assert re.search("connected", lab.log.read_text())


def test_what_nobody_sends_again_is_stored_when_the_store_is_well(own: Own, request: pytest.FixtureRequest) -> None:
    """A transmission that breaks off, and garbage, while nothing can be stored: both are shown afterwards."""
    lab = own()
    with lab.astm_client() as line:
        assert line.raw(ENQ) == ACK
        assert line.raw(frame(1, b"H|\\^&|||XN-1000\r")) == ACK
        with store_failing(lab, request):
            line.close()
            with lab.hl7_client() as garbage:
                garbage.raw(b"GET / HTTP/1.0\r\n\r\n")
            wait_until(lambda: "not stored" in lab.log.read_text(), 10, "neither could be stored")
    lab.tell(fresh())
    wait_until(lambda: lab.messages("incomplete") and lab.messages("stray"), 5, "both are shown")
    assert len(lab.rows("pending")) == 2
