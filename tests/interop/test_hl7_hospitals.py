"""python-hl7's and hl7apy's servers as the hospital: whatever they do, each result reaches them and none twice with effect."""

from collections.abc import Callable

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from tests.e2e.helpers import RBC, WBC, Lab, fresh
from tests.interop.hospitals import AsyncioHospital, Hl7apyHospital, Remembering
from tests.support import oru, wait_until

ORU = "ORU^R01^ORU_R01"
Alone = Callable[..., Lab]


def tell(lab: Lab, *specimens: str) -> None:
    """One result of each specimen comes from an analyzer and is acknowledged."""
    with lab.hl7_client() as client:
        for number, specimen in enumerate(specimens):
            assert b"\rMSA|AA|" in client.send(oru(specimen, number, [WBC, RBC]))


def wait_delivered(lab: Lab, count: int, seconds: float = 30) -> None:
    """Waits until so many deliveries are acknowledged, and none is left."""

    def done() -> bool:
        [his] = lab.status()["destinations"]
        return bool(his["delivered"] == count and not his["queue"] and not his["refused"])

    wait_until(done, seconds, f"{count} delivered")


def each_once(hospital: Remembering, specimens: list[str]) -> None:
    """Every specimen came, and whatever came again was the very same message."""
    for specimen in specimens:
        assert len(set(hospital.of(specimen))) == 1, specimen
    assert {control_id for control_id, _ in hospital.messages} == {hospital.of(one)[0][0] for one in specimens}


def test_python_hl7s_server_takes_every_message_once(alone: Alone) -> None:
    lab = alone()
    specimens = [fresh() for _ in range(40)]
    with AsyncioHospital(lab.his, encoding="utf-8") as hospital:
        tell(lab, *specimens)
        wait_delivered(lab, 40)
        each_once(hospital, specimens)
        assert len(hospital.messages) == 40
        found = hl7.parse(hospital.of(specimens[0])[0][1])
        assert [str(segment[5]) for segment in found.segments("OBX")] == ["5.50", "4.50"]
        assert lab.stop() == 0


def test_python_hl7s_server_hangs_up_without_an_answer(alone: Alone) -> None:
    """Every other time it takes a message and closes the connection: the message comes again, the same."""
    lab = alone()
    specimens = [fresh() for _ in range(6)]
    seen: set[str] = set()

    def code(message: hl7.Message) -> str | None:
        control_id = str(message["MSH.F10"])
        first = control_id not in seen
        seen.add(control_id)
        return None if first else "AA"

    with AsyncioHospital(lab.his, encoding="utf-8", code=code) as hospital:
        tell(lab, *specimens)
        wait_delivered(lab, 6)
        each_once(hospital, specimens)
        assert len(hospital.messages) == 12
        assert lab.stop() == 0


def test_python_hl7s_server_that_cannot_read_a_name_gets_it_when_it_can(alone: Alone) -> None:
    """Its encoding is ASCII unless told otherwise; its handler then dies of a name, without a word."""
    lab = alone()
    plain, named = fresh(), fresh()
    with AsyncioHospital(lab.his) as hospital:
        with lab.hl7_client() as client:
            assert b"\rMSA|AA|" in client.send(oru(named, 1, [WBC]).replace(b"DOE^JO", "王^小明".encode()))
        tell(lab, plain)
        wait_until(lambda: hospital.of(plain), 20, "the plain one arrives")
        wait_until(lambda: hospital.faults, 20, "the handler died of the name")
        assert isinstance(hospital.faults[0], UnicodeDecodeError)
        assert not hospital.of(named)
    with AsyncioHospital(lab.his, encoding="utf-8") as hospital:
        wait_delivered(lab, 2, 60)
        each_once(hospital, [named])
        assert "王^小明" in hospital.of(named)[0][1]
        assert lab.stop() == 0


def test_python_hl7s_server_refuses_and_the_message_waits_for_a_person(alone: Alone) -> None:
    lab = alone(changes=[("[[route]]", "[destination.answers]\ntries = 1\n\n[[route]]")])
    good, bad = fresh(), fresh()
    with AsyncioHospital(lab.his, encoding="utf-8", code=lambda message: "AE" if bad in str(message) else "AA") as hospital:
        tell(lab, good, bad)
        wait_until(lambda: lab.status()["destinations"][0]["refused"] == 1, 20, "refused")
        [refused] = [row for row in lab.queue() if row["state"] == "refused"]
        assert refused["specimen"] == bad
        hospital.code = lambda message: "AA"
        lab.well("queue", "retry", str(refused["id"]))
        wait_delivered(lab, 2)
        each_once(hospital, [good, bad])
        assert lab.stop() == 0


def test_hl7apys_server_closes_behind_every_answer(alone: Alone) -> None:
    """It serves one message a connection; labbridge comes back, and nothing is sent twice for it."""
    lab = alone()
    specimens = [fresh() for _ in range(10)]
    with Hl7apyHospital(lab.his, ORU) as hospital:
        tell(lab, *specimens)
        wait_delivered(lab, 10, 60)
        each_once(hospital, specimens)
        assert len(hospital.messages) == 10
        for specimen in specimens:
            parse_message(hospital.of(specimen)[0][1], validation_level=VALIDATION_LEVEL.STRICT).validate()
        assert lab.stop() == 0


def test_hl7apys_server_without_a_handler_for_results_gets_them_when_it_has_one(alone: Alone) -> None:
    """It closes the connection upon a message type that it does not know: that is no refusal, and is tried again."""
    lab = alone()
    specimens = [fresh() for _ in range(3)]
    with Hl7apyHospital(lab.his, "ADT^A01^ADT_A01") as hospital:
        tell(lab, *specimens)
        wait_until(lambda: lab.status()["destinations"][0]["queue"] == 3, 10, "queued")
        assert hospital.messages == []
    with Hl7apyHospital(lab.his, ORU) as hospital:
        wait_delivered(lab, 3, 60)
        each_once(hospital, specimens)
        assert lab.stop() == 0


@pytest.mark.parametrize("foreign", ["python-hl7", "hl7apy"])
def test_a_daemon_that_dies_in_between_loses_and_doubles_nothing(alone: Alone, foreign: str) -> None:
    """kill -9 while a foreign hospital takes messages: those that were not settled come again, with the same MSH-10."""
    lab = alone()
    specimens = [fresh() for _ in range(16)]
    with AsyncioHospital(lab.his, encoding="utf-8") if foreign == "python-hl7" else Hl7apyHospital(lab.his, ORU) as hospital:
        tell(lab, *specimens)
        wait_until(lambda: hospital.messages, 20, "the first arrives")
        lab.kill()
        lab.start()
        wait_until(lambda: not lab.status()["destinations"][0]["queue"], 60, "the queue is empty")
        each_once(hospital, specimens)
        assert lab.stop() == 0
