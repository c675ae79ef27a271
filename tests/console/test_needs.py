"""What needs a person, and what a card says: decided from a picture of the laboratory, without a screen."""

from types import SimpleNamespace
from typing import Any

import pytest

from labbridge.model import Reason
from labbridge.views import cards, needs, texts
from labbridge.views.rows import Cause, Row, Why

NOW = 1_795_320_000.0


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_site", {"zone": "UTC", "language": "en"})


def analyzer(**different: Any) -> dict[str, Any]:
    usual = {"name": "a-1", "profile": "p", "listens": True, "links": 1, "down": 0, "why": "", "last": int(NOW - 5), "skew": 0}
    return {**usual, **different}


def destination(**different: Any) -> dict[str, Any]:
    usual = {"name": "his", "connections": 1, "queue": 0, "refused": 0, "oldest": 0.0, "paused": False, "down": 0, "why": ""}
    return {**usual, **different}


def row(id: int, specimen: str, code: str = "absurd", **different: Any) -> Row:
    why = Why(Reason(code))
    at = int(different.pop("at", NOW) * 1e6)
    return Row(abs(id), "held" if id > 0 else "message", at, specimen, "a-1", Cause("", "a-1", (why,)), (why,), **different)


def picture(*rows: tuple[int, Row], **different: Any) -> Any:
    status = {"store": "ready", "analyzers": [analyzer()], "destinations": [destination()], **different.pop("status", {})}
    hours = SimpleNamespace(last={}, results={"a-1": [3, 4]}, delivered={"his": [2, 5]})
    usual = {"daemon_silent_s": 0.0, "usual": {}, "hours": hours, "held": SimpleNamespace(rows=dict(rows)), "status": status}
    return SimpleNamespace(**{**usual, **different})


def texts_of(watch: Any) -> list[tuple[str, str]]:
    return [(need.level, need.text) for need in needs.needs(watch, NOW)]


def test_nothing_needs_a_person() -> None:
    assert texts_of(picture()) == []


def test_the_most_urgent_comes_first() -> None:
    watch = picture(
        (1, row(1, "S1", "unmapped")),
        (2, row(2, "S2", "critical", critical=True)),
        (-3, row(-3, "")),
        status={"destinations": [destination(paused=True, queue=7)]},
    )
    found = texts_of(watch)
    assert [level for level, _ in found] == ["critical", "fault", "attention", "attention", "attention"]
    assert found[0][1] == "Critical values wait for a call: 1"
    assert found[1][1] == "his is paused; 7 wait"


def test_a_critical_value_that_was_told_sounds_no_more() -> None:
    watch = picture((1, row(1, "S1", "critical", critical=True, told=True)), (2, row(2, "S2", "critical", critical=True)))
    need = needs.critical(watch)
    assert need is not None
    assert need.specimens == ("S2",)
    assert needs.critical(picture((1, row(1, "S1", "critical", critical=True, told=True)))) is None


def test_of_many_critical_specimens_the_oldest_are_named_and_none_can_hide_the_others() -> None:
    rows = [
        (n, row(n, f"S{n}" if n > 1 else "\x1b[2J" + "x" * 100_000, "critical", critical=True, at=NOW + n)) for n in range(1, 9)
    ]
    need = needs.critical(picture(*rows))
    assert need is not None
    assert len(need.specimens) == 8
    said = needs.named(need.specimens)
    assert len(said) < 200
    assert said.startswith("\\x1b[2J")


@pytest.mark.parametrize(
    ("silence", "usual", "told"), [(3600, None, False), (299, 10, False), (700, 400, False), (900, 400, True), (301, 10, True)]
)
def test_a_silence_is_told_against_what_is_usual_at_this_hour(silence: int, usual: float | None, told: bool) -> None:
    one = analyzer(last=int(NOW - silence))
    watch = picture(status={"analyzers": [one]}, usual={} if usual is None else {"a-1": usual})
    assert any("silent" in text for _, text in texts_of(watch)) is told
    assert (cards.analyzer(watch, one, NOW).tone == "bad") is told


def test_a_line_that_is_down_and_a_clock_that_is_wrong() -> None:
    down = analyzer(listens=False, links=0, down=125)
    watch = picture(status={"analyzers": [down, analyzer(name="a-2", skew=-180)]})
    assert texts_of(watch) == [("fault", "a-1 cannot be reached since 2 min"), ("attention", "The clock of a-2 is wrong by 3 min")]
    shown, off = cards.cards(watch, NOW)[0]
    assert (shown.state.word[:10], shown.state.tone) == ("Down since", "bad")
    assert ("Clock", "3 min behind", "warn") in off.facts


@pytest.mark.parametrize(
    ("one", "word", "tone"),
    [
        (analyzer(), "Connected", "good"),
        (analyzer(links=0), "Listening, not connected yet", "quiet"),
        (analyzer(links=0, down=60), "Listening, not connected since", "warn"),
        (analyzer(listens=False, links=0), "Waiting", "quiet"),
    ],
)
def test_how_an_analyzer_stands(one: dict[str, Any], word: str, tone: str) -> None:
    state = cards.analyzer(picture(), one, NOW).state
    assert state.word.startswith(word)
    assert state.tone == tone


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (destination(paused=True), "Paused"),
        (destination(), "Connected"),
        (destination(connections=0, down=9), "Down since"),
        (destination(connections=0), "Not connected"),
    ],
)
def test_how_a_destination_stands(one: dict[str, Any], word: str) -> None:
    card = cards.destination(picture(), one, NOW)
    assert card.state.word.startswith(word)
    assert card.hours == (2, 5)
    assert ("Delivered in 24 hours", "7", "") in card.facts


def test_a_daemon_that_does_not_answer_is_told_before_all() -> None:
    watch = picture(daemon_silent_s=12.0, status={})
    watch.status = {}
    assert texts_of(watch) == [("fault", "labbridge has not answered for 12 s: the figures below are old")]
    assert texts_of(picture(status={"store": "unavailable"}))[0][0] == "fault"


def test_what_is_held_is_counted_once_for_all_pages() -> None:
    watch = picture((1, row(1, "S1")))
    assert needs.counted(watch) is needs.counted(watch)
    assert needs.counted(watch).held["a-1"] == 1
