"""The daemon in this process: what a reload makes of a fault of our own."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from labbridge import config, daemon, revision
from labbridge.commands import Request
from labbridge.daemon import Daemon
from tests.loop import Loop
from tests.support import free_ports

TEXT = """
[site]
name = "Lab"
timezone = "Asia/Shanghai"

[[analyzer]]
name = "one"
profile = "generic-hl7"
listen = "127.0.0.1:{}"
"""


def _broken(*_: Any) -> Any:
    raise ZeroDivisionError


@pytest.fixture(name="loop")
def own_loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.dispose()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """What the log says of faults."""
    said: list[str] = []

    def observe(event: Any) -> None:
        if "log_failure" in event:
            said.append(f"{event['log_format']}: {event['log_failure'].type.__name__}")

    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def running(loop: Loop, tmp_path: Path) -> Iterator[Daemon]:
    file = tmp_path / "labbridge.toml"
    file.write_text(TEXT.format(free_ports(1)[0]))
    made = Daemon(config.load(file), file, loop, time.time)
    made.start()
    loop.until(lambda: made.intake.accepting)
    yield made
    for station in made.stations.values():
        station.stop("the test is over")
    made._control.stopListening()
    assert made.store.close()


def by_hand(made: Daemon) -> list[Any]:
    answers: list[Any] = []
    made.execute(Request(command="reload"), "me", answers.append)
    return answers


def by_signal(made: Daemon) -> list[Any]:
    answers: list[Any] = []
    made.reload().addCallback(lambda problems: answers.append({"ok": not problems, "said": [], "error": "; ".join(problems)}))
    return answers


@pytest.mark.parametrize("how", [by_hand, by_signal])
@pytest.mark.parametrize(("room", "name"), [(config, "load"), (revision, "build"), (config, "changes")])
def test_a_fault_of_ours_in_a_reload_is_logged_and_the_old_configuration_stays(
    running: Daemon,
    loop: Loop,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[str],
    how: Callable[[Daemon], list[Any]],
    room: Any,
    name: str,
) -> None:
    """Whoever asked for it hears of it, and nothing is touched; the next reload works."""
    old = running.settings, running.revision, dict(running.stations)
    running.path.write_text(running.path.read_text().replace('"Lab"', '"Another"'))
    with monkeypatch.context() as patch:
        patch.setattr(room, name, _broken)
        answers = how(running)
        loop.until(lambda: answers)
    assert answers == [{"ok": False, "said": [], "error": "not carried out: ZeroDivisionError"}]
    assert faults == ["a fault while the configuration was read again: ZeroDivisionError"]
    assert (running.settings, running.revision, running.stations) == old
    answers = how(running)
    loop.until(lambda: answers)
    assert answers[0]["ok"]
    assert running.settings.site.name == "Another"


def test_an_analyzer_that_cannot_be_started_keeps_no_other_from_starting(
    running: Daemon, loop: Loop, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    """A fault of ours in one of two new analyzers: the other listens."""
    more = "".join(
        f'\n[[analyzer]]\nname = "{name}"\nprofile = "generic-hl7"\nlisten = "127.0.0.1:{port}"\n'
        for name, port in zip(("bad", "good"), free_ports(2), strict=True)
    )
    running.path.write_text(running.path.read_text() + more)
    really = daemon.Station

    def station(analyzer: Any, owner: Daemon) -> Any:
        return _broken() if analyzer.name == "bad" else really(analyzer, owner)

    monkeypatch.setattr(daemon, "Station", station)
    answers = by_hand(running)
    loop.until(lambda: answers)
    assert answers == [{"ok": False, "said": [], "error": "not carried out: ZeroDivisionError"}]
    assert list(running.stations) == ["one", "good"]
    assert len(faults) == 1
