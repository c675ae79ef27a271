"""The benchmark's own instruments count right; nothing is timed here."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def instrument(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@contextmanager
def running(*command: str | Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    with subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["port"], process
        finally:
            process.terminate()


def load(port: int, workload: str = "w1") -> Any:
    command = [sys.executable, str(BENCHMARKS / "load.py"), workload, str(port), "--connections", "4", "--seconds", "1"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=200).stdout)


@pytest.mark.parametrize("floor", ["bare", "sqlite", "frames"])
def test_the_generator_counts_what_a_floor_acknowledged(floor: str, tmp_path: Path) -> None:
    with running(BENCHMARKS / "floors.py", floor, tmp_path / "floor.db") as (port, process):
        run = load(port, "w2" if floor == "frames" else "w1")
        process.terminate()
        counted = json.loads(process.communicate(timeout=200)[0])["messages"]
    assert run["messages"] == run["next"] == counted > 0
    assert (run["refused"], run["lost"]) == (0, 0)


def test_the_hospital_counts_messages_control_ids_and_results() -> None:
    with running(BENCHMARKS / "sink.py") as (port, process):
        run = load(port)
        counts = json.loads(process.communicate("\n", timeout=200)[0])
    assert counts["messages"] == counts["distinct"] == run["messages"] > 0
    assert counts["results"] == 30 * run["messages"]


def test_every_message_has_a_specimen_of_its_own_and_the_same_length(instrument: Callable[[str], Any]) -> None:
    workloads = instrument("workloads")
    first, second = workloads.w1(1), workloads.w1(22)
    assert b"|SMP0000000001|" in first
    assert b"|SMP0000000022|" in second
    assert len(first) == len(second)
    assert first.count(b"\rOBX|") == workloads.RESULTS
    assert list(map(len, workloads.w2(1))) == list(map(len, workloads.w2(22)))
    assert b"^SMP0000000022^" in workloads.w2(22)[2]


def test_every_frame_has_its_number_and_checksum(instrument: Callable[[str], Any]) -> None:
    for number, frame in enumerate(instrument("workloads").w2(7), 1):
        checked, checksum = frame[1:-4], frame[-4:-2]
        assert frame[:1] == b"\x02"
        assert checked[:1] == b"%d" % (number % 8)
        assert checked[-2:] == b"\r\x03"
        assert checksum == b"%02X" % (sum(checked) % 256)


def test_a_refused_frame_ends_the_message_and_counts_as_refused(instrument: Callable[[str], Any]) -> None:
    accepted = []
    talk = instrument("load").lis01(iter([1, 2]), lambda began, ok: accepted.append(ok))
    assert next(talk) == b"\x05"
    assert talk.send(b"\x06").startswith(b"\x021H|")
    assert talk.send(b"\x15") == b"\x04\x05"
    for _ in range(34):
        assert talk.send(b"\x06").startswith(b"\x02")
    with pytest.raises(StopIteration) as last:
        talk.send(b"\x06")
    assert last.value.value == b"\x04"
    assert accepted == [False, True]
