"""Every class of torture, briefly: the promises hold, and a mistake that is planted is found. ``make torture`` does it for long."""

import json
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from labbridge.simulators.faults import of
from labbridge.store import Reader
from tests.faults.model import COUNTERS
from tests.support import Hospital, Laboratory, MllpClient, oru, wait_until
from tests.torture import launcher, suite
from tests.torture.classes import BOUNDARIES, CLASSES, KILLS, Chunk, add, chunks, dice_of, run
from tests.torture.suite import State

NONE = dict.fromkeys(COUNTERS, 0)

# Rounds that are quick, and of every kind; what a mistake is found in.
SOUND = {
    "kill": (2, 9, 12, 16, 18),
    "disk": (0, 1),
    "stall": (1,),
    "hospital": (0, 1, 5),
    "links": range(4),
    "doubt": range(4),
    "machine": (0, 1, 2),
    "person": (1, 2, 3, 4, 16),
}
PLANTED = [
    ("kill", "acknowledge-before-commit", (0, 0)),
    ("kill", "frames-not-kept", (10, 11)),
    ("disk", "failure-not-noticed", (1, 1)),
    ("stall", "never-overdue", (1,)),
    ("hospital", "swapped-specimen", (1,)),
    ("links", "broken-off-taken-for-whole", range(6)),
    ("machine", "acknowledged-when-locked", (1,)),
    ("person", "moves-forgotten", (4, 7, 16, 19)),
]


def _kept(result: dict[str, Any]) -> None:
    assert result["problems"] == []
    assert result["counts"] == NONE
    assert result["acknowledged"] > 0
    assert result["taken"] >= result["acknowledged"]


@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_lost_doubled_misfiled_out_of_order_or_late_under(name: str, tmp_path: Path) -> None:
    result = run(Chunk(name, 1, list(SOUND[name])), tmp_path / "lab")
    _kept(result)
    assert sum(result["happened"].values()) >= len(SOUND[name]), "whatever was to happen has"
    assert "nothing befell" not in result["happened"]


@pytest.mark.postgresql
def test_nothing_is_lost_doubled_misfiled_or_out_of_order_on_postgresql(tmp_path: Path) -> None:
    _kept(run(Chunk("postgres", 1, [0, 1]), tmp_path / "lab"))


@pytest.mark.parametrize(("name", "fault", "numbers"), PLANTED, ids=[fault for _, fault, _ in PLANTED])
def test_a_planted_mistake_is_found(name: str, fault: str, numbers: Any, tmp_path: Path) -> None:
    result = run(Chunk(name, 1, list(numbers), fault), tmp_path / "lab")
    assert any(result["counts"].values()), result["problems"]


def test_what_was_withdrawn_by_a_commit_whose_answer_was_lost_is_not_sent(tmp_path: Path) -> None:
    """The person was told that it is not done; the store says that it is, and the store is right."""
    lab = Laboratory(tmp_path)
    lab.start(sys.executable, launcher.__file__, "commit-in-doubt")
    try:
        with closing(MllpClient(lab.hl7)) as client:
            for number in range(1, 31):
                message = oru(f"S{number}", number, [("6690-2^WBC^LN", "5.00", "10*9/L")])
                wait_until(lambda message=message: b"MSA|AA" in client.send(message), 10, "acknowledged")
        lost = 0
        for number in range(1, 16):
            request = {"command": "cancel", "deliveries": [number], "reason": "told by telephone"}
            for _ in range(10):  # where the answer to another commit was lost just then, it is not even begun
                told = ask(tmp_path / "labbridge.sock", request)["ok"]
                wait_until(lambda: lab.status()["store"] == "ready", 10, "the store is back")
                with closing(Reader(f"sqlite:///{tmp_path}/lab.db")) as reader:
                    done = number not in {row.id for row in reader.queued()}
                if done:
                    break
            lost += done and not told
        assert lost
        with closing(Reader(f"sqlite:///{tmp_path}/lab.db")) as reader, Hospital(lab.his) as hospital:
            waiting = {row.control_id for row in reader.queued()}
            assert len(waiting) == 15
            wait_until(lambda: not reader.queued(), 40, "the queue drains")
            assert {control_id for control_id, _ in hospital.got()} == waiting
    finally:
        lab.kill()


def ask(path: Path, request: dict[str, Any]) -> Any:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(client.recv(65536))


def test_every_class_has_a_mistake_that_it_must_find() -> None:
    assert all(kind.planted for kind in CLASSES.values())
    assert {fault for _, fault, _ in PLANTED} <= {fault for kind in CLASSES.values() for fault, _ in kind.planted}


def test_the_rounds_cover_all_kinds_of_boundaries_and_faults_evenly() -> None:
    rounds = [number for chunk in chunks("kill", 1, 1600) for number in chunk.numbers]
    assert rounds == list(range(1600))
    assert len(BOUNDARIES) + 4 == KILLS
    assert {round(1600 / KILLS)} == {sum(number % KILLS == place for number in rounds) for place in range(KILLS)}
    names = len(tuple(of("hospital")))
    assert CLASSES["hospital"].chunk >= names, "a chunk has each of them"


def test_a_round_hangs_on_seed_class_and_number_alone() -> None:
    assert dice_of(1, "kill", 7).random() == dice_of(1, "kill", 7).random()
    assert len({dice_of(seed, name, 7).random() for seed in (1, 2) for name in ("kill", "disk")}) == 4


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the file is not run again; with another seed, everything is."""
    result = {
        "acknowledged": 3, "taken": 3, "slowest": 0.1, "counts": NONE, "problems": [],
        "happened": {"down": 2}, "listening": [1.0, 2.0], "seconds": 4.0,
    }  # fmt: skip
    ran: list[str] = []

    def once(chunk: Chunk) -> dict[str, Any]:
        ran.append(chunk.key)
        return {"broken": "interrupted"} if len(ran) == 3 else result

    monkeypatch.setattr(suite, "in_a_process", once)
    wanted = list(chunks("disk", 5, 100))
    count = len(wanted)
    for _ in range(2):
        suite.run(wanted, State(tmp_path / "state.json", 5), workers=1)
    assert sorted(ran) == sorted([*(chunk.key for chunk in wanted), ran[2]])
    whole = suite.total(State(tmp_path / "state.json", 5), wanted)
    assert (whole["acknowledged"], whole["happened"], len(whole["listening"])) == (3 * count, {"down": 2 * count}, 2 * count)
    assert json.loads((tmp_path / "state.json").read_text())["seed"] == 5
    assert State(tmp_path / "state.json", 6).done == {}
    assert add(result, {**result, "problems": ["lost"], "slowest": 0.2})["problems"] == ["lost"]


def test_the_page_tells_what_was_injected_and_what_was_found(tmp_path: Path) -> None:
    state = State(None, 5)
    one = {
        "acknowledged": 3, "taken": 3, "slowest": 0.1, "counts": {**NONE, "lost": 7}, "problems": ["lost: x"] * 7,
        "happened": {"before wal fsync": 2}, "listening": [1.0, 1.5, 2.0], "seconds": 4.0,
    }  # fmt: skip
    for chunk in suite.planted(5):
        state.done[chunk.key] = one
    state.done[suite.POWER] = dict.fromkeys(("images", "boundaries", "acknowledged", "stores", "daemons", "broke", "failed"), 11)
    state.done[suite.POWER_PLANTED] = {"no-fsync": {"broke": 9, "of": 20, "kinds": {"ledger": 9}}}
    page = suite.page(state, dict.fromkeys(CLASSES, one), 5, 1.5)
    assert "1.50 s (median of 3 restarts" in page
    assert "| kill | before wal fsync | 2 |" in page
    assert "| kill | acknowledge-before-commit | lost 7 |" in page
    assert "| power | no-fsync | 9 of 20 images: ledger |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows if "power cuts: images" in line or "acknowledged but lost" in line} == {10}
