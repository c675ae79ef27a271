"""What the log tells of an outage: a line, reminders, an end; not a line for each attempt."""

import pytest
from structlog.testing import capture_logs
from twisted.internet.task import Clock

from labbridge.links.retry import State
from labbridge.outages import Outage

Said = list[tuple[str, float]]


class Line:
    """An outage on a clock; ``said`` is what the log tells, with the seconds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.outage = Outage("analyzer", "xn-1", self.clock)
        self.failures = 0

    def down(self, failures: int = 0) -> None:
        self.failures = failures or self.failures + 1
        self.outage.changed(State(False, self.failures, "refused"))

    def up(self) -> None:
        self.outage.changed(State(True, self.failures))


@pytest.fixture
def line() -> Line:
    return Line()


def test_an_outage_is_one_line_a_reminder_every_quarter_of_an_hour_and_an_end(line: Line) -> None:
    """Tried every 30 s for an hour: the first failure, four reminders, and how long it was."""
    with capture_logs() as said:
        for _ in range(121):
            line.down()
            line.clock.advance(30)
        line.up()
    assert [(entry["event"], entry["seconds"]) for entry in said] == [
        *[("analyzer is down, trying again and again", 900 * number) for number in range(5)],
        ("analyzer is back", 3630),
    ]
    assert all(entry["analyzer"] == "xn-1" for entry in said)
    assert said[0]["why"] == "refused"


def test_a_connection_that_was_good_begins_another_outage(line: Line) -> None:
    with capture_logs() as said:
        line.down(1)
        line.up()
        line.down(1)
    assert [entry["log_level"] for entry in said] == ["warning", "info", "warning"]


def test_who_only_accepts_and_closes_is_one_outage(line: Line) -> None:
    """A hospital that takes connections and drops them, for a whole night, does not fill the log; at last it is back."""
    with capture_logs() as said:
        line.down()
        for _ in range(100):
            line.up()
            line.clock.advance(1)
            line.down()
            line.clock.advance(29)
        line.up()
        line.clock.advance(5)
    assert [entry["log_level"] for entry in said] == ["warning", "info", *["warning"] * 3, "info"]


def test_a_first_connection_is_no_news(line: Line) -> None:
    with capture_logs() as said:
        line.up()
    assert said == []
