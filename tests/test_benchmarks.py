"""The benchmark's own instruments count right; nothing is timed here."""

import importlib
import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from labbridge.states import States
from labbridge.store import Reader, verify

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


def said(script: str, *options: Any) -> Any:
    """The one line that a program of the benchmarks prints."""
    command = [sys.executable, str(BENCHMARKS / script), *map(str, options)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=200).stdout)


def load(port: int, workload: str = "w1", *options: str) -> Any:
    return said("load.py", workload, port, "--connections", 4, "--seconds", 0.5, *options)


@pytest.mark.parametrize("peer", ["python-hl7", "hl7apy"])
def test_the_generator_counts_what_a_peer_acknowledged(peer: str) -> None:
    with running(BENCHMARKS / "peers.py", peer) as (port, process):
        run = load(port, "w1", *(["--reconnect"] if peer == "hl7apy" else []))
        process.terminate()
        counted = json.loads(process.communicate(timeout=200)[0])["messages"]
    assert run["messages"] == run["next"] == counted > 0
    assert (run["refused"], run["lost"]) == (0, 0)


@pytest.mark.parametrize("workload", ["w1", "flood"])
def test_the_generator_sends_so_many_messages_and_no_more(workload: str) -> None:
    with running(BENCHMARKS / "sink.py") as (port, process):
        run = load(port, workload, "--messages", "700")
        counts = json.loads(process.communicate("\n", timeout=200)[0])
    assert run["messages"] == counts["messages"] == counts["distinct"] == 700
    assert 0 < counts["first"] <= counts["last"]


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


def test_an_open_load_is_timed_from_when_a_message_was_due(instrument: Callable[[str], Any]) -> None:
    """A link that answers late makes those behind it late too."""
    with running(BENCHMARKS / "floors.py", "bare", "-") as (port, _):
        run = said("replay.py", "steady", port, 400, "--links", 3, "--seconds", 0.5)
    assert (run["messages"], run["refused"], run["lost"]) == (200, 0, 0)
    assert run["ended"] - run["began"] > 0.45
    assert 0 < run["links"]["w1"]["p50_ms"] <= run["links"]["w1"]["p99_ms"] <= run["links"]["w1"]["max_ms"]
    replay, laboratory = instrument("replay"), instrument("laboratory")
    with running(BENCHMARKS / "floors.py", "bare", "-") as (port, _):
        content = instrument("workloads").w1(1)
        late = replay.Replay(
            [replay.Link("w1", port)], iter([laboratory.Due(-0.5, 0, content, 30), laboratory.Due(0, 0, content, 0)])
        )
        late.run()
    assert (late.count, late.held, late.results) == (2, 1, 30)
    assert late.result()["links"]["w1"]["max_ms"] >= 500


def test_a_day_has_every_specimen_and_the_mornings_peak(instrument: Callable[[str], Any]) -> None:
    laboratory = instrument("laboratory")
    sent = list(laboratory.schedule(1.0))
    assert Counter(one.name for one in sent) == {"pcr": 3000, "line": 10_000, "count-1": 800, "count-2": 800}
    assert len({(one.name, one.number, one.module) for one in sent}) == len(sent)
    hours = Counter(int(one.second // 3600) for one in sent if one.name == "line")
    assert max(hours, key=lambda hour: hours[hour]) == 8
    assert len(laboratory.tests()) == len({test for test, _, _ in laboratory.tests()}) == 200
    due = list(laboratory.day(60.0, 8.0, 8.1, 1.0))
    assert [one.at_s for one in due] == sorted(one.at_s for one in due)
    assert 0 <= due[0].at_s <= due[-1].at_s < 6


@pytest.fixture
def near() -> Iterator[Path]:
    """A folder with a short name: a control socket has 107 bytes for its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_tiny_day_comes_through_whole(near: Path) -> None:
    """Every analyzer's messages are mapped, what must be held is held, and nothing else."""
    row = said("day.py", "--speed", 43200, "--part", 0.0134, "--folder", near)
    assert row["problems"] == []
    assert (row["messages"], row["delivered"], row["held"]) == (40 + 130 + 10 + 10, 190, 0)
    assert row["results"] == 40 * 4 + 13 * 200 + 20 * 30
    assert not list(near.iterdir())


def test_a_queue_that_waited_is_drained_and_told_on_the_page(near: Path) -> None:
    """One part of `make performance`, tiny: measured, kept in the results, written down."""
    results, docs = near / "run" / "results.jsonl", near / "docs"
    options = ("--tiny", "--runs", "1", "--only", "drain", "--results", results, "--docs", docs, "--folder", near)
    command = [sys.executable, str(BENCHMARKS / "performance.py"), *map(str, options)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    machine, row = map(json.loads, results.read_text().splitlines())
    assert (machine["what"], row["part"], row["run"], row["deliveries"], row["problems"]) == ("machine", "drain", 1, 300, [])
    assert min(row[name] for name in ("per_second", "reconnect_s", "start_s", "waiting_mb", "intake_per_second")) > 0
    assert "| deliveries that waited | 300 |" in (docs / "performance.md").read_text("utf-8")
    assert sorted(one.name for one in near.iterdir()) == ["docs", "run"]


def test_a_filled_store_is_as_a_daemon_would_have_left_it(instrument: Callable[[str], Any], near: Path) -> None:
    volume, fill = instrument("volume"), instrument("fill")
    with ExitStack() as stack:
        place = instrument("bed").Bed(near, stack)
        volume.seed(place)
    fill.fill(place.store, 0, 100)
    fill.fill(place.store, 100, 150)
    reader = Reader(f"sqlite:///{place.store}")
    assert verify(reader, states=States()).problems == []
    traced = reader.trace("SMP0010000149")
    assert [len(traced.messages), len(traced.reports), len(traced.deliveries), len(traced.attempts)] == [1, 1, 1, 1]
    assert len(reader.pending()) == 20
    assert reader.queued() == []
    reader.close()


def rows(per_second: float = 500.0) -> Iterator[dict[str, Any]]:
    """Lines as the measurements print them, of three runs."""
    yield {"what": "machine", "processor": "Any", "cores": 2, "day": "2026-11-21"}
    for run, slower in enumerate((1.0, 0.5, 0.9), 1):
        for what, rate in (("w1", per_second), ("sqlite", 1000.0 if run == 3 else 2000.0), ("python-hl7", 50.0)):
            numbers = {"p50_ms": 2.0, "p99_ms": 9.0, "cpu_us": 400.0, "memory_mb": 100.0, "per_second": rate * slower}
            yield {"part": "bench", "run": run, "what": what, "connections": 64, "problems": []} | numbers
        for rate in (100, 1000):
            kept = min(rate, 500)
            numbers = {"p50_ms": 2.0, "p99_ms": 9.0, "cpu_us": 400.0, "per_second": kept}
            yield {"part": "curve", "run": run, "of": "labbridge", "offered": rate, "problems": []} | numbers
    for stored in (0, 1000):
        yield {
            "part": "volume",
            "run": 1,
            "what": "volume",
            "beside": 1000,
            "stored": stored,
            "mb": 12,
            "trace_ms": 1 + stored / 2000,
        }


def page(instrument: Callable[[str], Any], folder: Path, lines: list[dict[str, Any]]) -> str:
    instrument("page").write(lines, folder)
    return (folder / "performance.md").read_text("utf-8")


def test_the_page_tells_medians_ratios_of_one_run_and_the_limits(instrument: Callable[[str], Any], tmp_path: Path) -> None:
    text = page(instrument, tmp_path, list(rows()))
    assert "| processor | Any |" in text
    assert "| 64 | **labbridge, W1** (HL7, MLLP) | 450 | 2 | 9 | 400 | 100 | 0.25 | 10 |" in text
    assert "floor that commits the raw message | ≥ 0.2 | 0.25 | yes |" in text
    assert "1,000 stored: trace, ms of reading, of an empty store | ≤ 1.1 | 1.5 | **no** |" in text
    assert "idle links: memory | ≤ 30 MB | not measured |" in text
    assert "What went wrong" not in text
    assert "≥ 0.2 | 0.15 | **no** |" in page(instrument, tmp_path, list(rows(300.0)))


def test_the_page_says_what_went_wrong(instrument: Callable[[str], Any], tmp_path: Path) -> None:
    wrong = {"part": "drain", "run": 2, "problems": ["3 messages refused"]}
    assert "- drain, run 2: 3 messages refused" in page(instrument, tmp_path, [*rows(), wrong])


def test_the_pictures_are_svg_with_every_point_inside(instrument: Callable[[str], Any], tmp_path: Path) -> None:
    text = page(instrument, tmp_path, list(rows()))
    for name in ("latency", "volume"):
        assert f"(images/{name}.svg)" in text
        picture = ElementTree.parse(tmp_path / "images" / f"{name}.svg").getroot()
        width, height = map(float, picture.attrib["viewBox"].split()[2:])
        points = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in picture.iter() if one.tag.endswith("circle")]
        assert points
        assert all(0 < x < width and 0 < y < height for x, y in points)
    latency = (tmp_path / "images" / "latency.svg").read_text("utf-8")
    assert latency.count("<circle") == 2  # p50 and p99 of the one rate that was kept up with


def test_what_was_measured_is_not_measured_again(
    instrument: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was broken off goes on with what is missing."""
    performance = instrument("performance")
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    measured: list[tuple[str, int]] = []

    def measure(part: str, number: int, _: Namespace) -> None:
        measured.append((part, number))

    monkeypatch.setattr(performance, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["performance.py", "--results", str(results), "--docs", str(tmp_path)])
    assert performance.main() == 0
    assert measured == [("drain", 1), ("links", 1), ("day", 1), ("drain", 2), ("links", 2), ("drain", 3), ("links", 3)]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", "bench", "volume"])
    measured.clear()
    assert performance.main() == 0
    assert measured == [("bench", 1), ("volume", 1), ("bench", 2), ("bench", 3)]
    assert (tmp_path / "results.before.jsonl").exists()
