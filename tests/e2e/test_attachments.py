"""Images on the whole road: to a destination that asks for them and to one that does not, at once and after a release."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from labbridge.store.erasure import mark
from tests.e2e.helpers import RBC, WBC, Lab, Ward, fresh, observations
from tests.support import field, only, oru, wait_until

ASKS = """
[[destination]]
name = "pictures"
connect = "127.0.0.1:{spare3}"
codes = "his"

[destination.oru]
attachments = true

[[route]]
to = "pictures"
"""
CRITICAL = ("6690-2^WBC^LN", "0.20", "10*9/L")
IMAGE = "^Image^BMP^Base64^" + "Qk2A+/00" * 10_000


class Both:
    """A laboratory, its hospital, and another destination that asks for attachments."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.asks = lab, Ward(lab.ports["spare3"])

    def tell(self, specimen: str, *results: tuple[str, str, str], mode: bytes = b"|P|") -> None:
        """Sends one message with an image behind its results."""
        histogram = f"OBX|9|ED|15000^WBC Histogram. BMP^99MRC||{IMAGE}||||||F\r"
        message = (oru(specimen, 1, list(results)) + histogram.encode()).replace(b"|P|", mode)
        with self.lab.hl7_client() as client:
            assert field(client.send(message), b"MSA", 1) == "AA"

    def arrived(self, specimen: str, count: int = 1) -> list[list[str]]:
        """For each message at the destination that asks: its codes, the image as ``15000``, which is whole."""
        told = [observations(message) for _, message in self.asks.wait(specimen, count)]
        assert [each["15000"][5] for each in told if "15000" in each] in ([IMAGE], [])
        assert all("15000" not in observations(message) for _, message in self.lab.ward.of(specimen))
        return [sorted(each) for each in told]


@pytest.fixture
def both(own: Callable[..., Lab]) -> Iterator[Both]:
    found = Both(own(extra=ASKS))
    found.asks.start()
    yield found
    found.asks.stop()


def test_a_destination_that_asks_gets_the_image_and_the_other_does_not(both: Both) -> None:
    """Every try has the same bytes; a control's image stays here."""
    specimen, control = fresh(), fresh()
    both.asks.plans[specimen] = lambda message, before: "AA" if before else "AR"
    both.tell(control, WBC, mode=b"|Q|")
    both.tell(specimen, WBC)
    first, again = both.asks.wait(specimen, 2)
    assert first == again
    assert observations(first[1])["15000"][2:6] == ["ED", "15000^WBC Histogram. BMP^L", "", IMAGE]
    [(_, plain)] = both.lab.ward.wait(specimen)
    assert sorted(observations(plain)) == ["H001"]
    wait_until(lambda: not both.lab.queue(), 10, "all is delivered")
    assert both.asks.of(control) == []


def test_a_held_report_keeps_its_image_until_a_person_releases_it(both: Both) -> None:
    specimen = fresh()
    both.tell(specimen, CRITICAL)
    wait_until(lambda: both.lab.held(specimen), 10, "held")
    assert both.asks.of(specimen) == []
    assert "without" not in both.lab.well("release", specimen, "--reason", "telephoned", "--told", "Dr. Li", "--read-back")
    assert both.arrived(specimen) == [["15000", "H001"]]


def test_an_image_leaves_with_the_first_part_of_its_report(both: Both) -> None:
    specimen = fresh()
    both.tell(specimen, CRITICAL, RBC)
    assert both.arrived(specimen) == [["15000", "H024"]]
    both.lab.well("release", specimen, "--reason", "telephoned", "--told", "Dr. Li", "--read-back")
    assert both.arrived(specimen, 2) == [["15000", "H024"], ["H001"]]


@only("sqlite", "the body is taken out of the file")
def test_without_the_message_a_report_leaves_without_its_image_and_says_so(both: Both) -> None:
    specimen = fresh()
    both.tell(specimen, CRITICAL)
    wait_until(lambda: both.lab.held(specimen), 10, "held")
    assert both.lab.stop() == 0
    with contextlib.closing(sqlite3.connect(both.lab.folder / "lab.db")) as store, store:
        [(document,)] = store.execute("SELECT document FROM report WHERE specimen = ?", (specimen,))
        assert len(document) < 1000
        store.execute("UPDATE message SET body = ? WHERE size > 50000", (mark(1, bytes(32)),))
    assert "leaves without its attachments" in both.lab.well(
        "release", specimen, "--reason", "telephoned", "--told", "Dr. Li", "--read-back"
    )
    both.lab.start()
    assert both.arrived(specimen) == [["H001"]]
