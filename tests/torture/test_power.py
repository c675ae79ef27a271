"""After a power cut at any moment the store opens and holds whatever was promised; ``make torture`` tries thousands of images.

Each planted fault shows that a broken promise is seen; the tests of the disk's model show that it invents and forgets nothing.
"""

import dataclasses
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from labbridge.store import Store, Transaction
from tests.torture import disk, load, promises, tracer
from tests.torture.disk import MANNERS, SECTOR, Disk, TraceError, boundaries
from tests.torture.load import Amount
from tests.torture.power import Cuts
from tests.torture.tracer import Call

AMOUNT = Amount()

# Which promise each fault of the launcher breaks.
BROKEN = {
    "acknowledge-before-commit": "acknowledged, but not in the journal",
    "no-fsync": "acknowledged, but not in the journal",
    "fsync-at-checkpoints-alone": "acknowledged, but not in the journal",
    "ledger-in-a-second-commit": "ledger",
    "send-before-commit": "sent, but not in the store with the same bytes",
    "settle-before-answer": "settled, and the hospital had not answered",
    "next-before-settled": "sent, and an earlier one of its lane would follow",
    "frames-not-kept": "a frame was acknowledged, and is nowhere",
}


# What is done to a store, and what the judge says of it.
TAMPERED = {
    "UPDATE message SET body = x'00' WHERE id = 9": "acknowledged, but not in the journal",
    "DELETE FROM decision WHERE id = 1": "acknowledged, but without report and decision",
    "DELETE FROM delivery WHERE id = 1": "acknowledged, but without its delivery",
    "UPDATE report SET specimen = '1' WHERE id = 1": "filed under another specimen",
    "UPDATE report SET state = 'held' WHERE id = 1": "acknowledged, and not released",
    "DELETE FROM audit": "a command was told to be done, and is not in the audit trail",
    "DELETE FROM message": "a frame was acknowledged, and is nowhere",
    "UPDATE delivery SET state = 'gone' WHERE id = 1": "unknown state",
    "UPDATE delivery SET state = 'queued' WHERE id = 1": "the state is not what the attempts say",
    "UPDATE delivery SET state = 'queued'": "sent, and an earlier one of its lane would follow",
    "UPDATE delivery SET payload = x'00' WHERE id = 1": "sent, but not in the store with the same bytes",
    "UPDATE ledger SET at = at + 1 WHERE sequence = 3": "ledger",
    "DELETE FROM attempt WHERE id = 3": "ledger",
    "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'report_key'": "integrity_check",
    "DROP TABLE attempt": "the image cannot be read",
}


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> Cuts:
    """One trace of a sound daemon."""
    return Cuts(load.record(tmp_path_factory.mktemp("lab"), AMOUNT), seed=1)


def _put(image: disk.Image, folder: Path) -> Path:
    for name, content in image.items():
        (folder / Path(name).name).write_bytes(content)
    return folder / "lab.db"


def test_a_power_cut_takes_back_nothing_that_was_promised(cuts: Cuts) -> None:
    """Images at the durable boundaries; the daemon itself starts on one of them."""
    assert len(cuts.promises.stored) == AMOUNT.messages
    assert len(cuts.promises.frames) == AMOUNT.messages / 2 * 4, "of each ASTM message, those before its last"
    assert len(cuts.promises.sent) > AMOUNT.messages / 2
    assert cuts.promises.audited
    score = cuts.run(80)
    assert score.problems == {}
    assert (score.images, score.boundaries, score.stores, score.daemons) == (80, 80, 8, 1)
    again = Cuts(cuts.recording, seed=1)
    assert list(again.images([17])) == list(cuts.images([17])), "an image is made again from its trace, seed and number"


def test_a_second_power_cut_takes_back_nothing_either(cuts: Cuts, tmp_path: Path) -> None:
    """The daemon works on what the first cut left, and the power fails again."""
    index = next(index for index in range(20, 200) if cuts.promises.before(cuts.at(index)).stored)
    [(_, image)] = cuts.images([index])
    promised = cuts.promises.before(cuts.at(index)).made()
    again = Cuts(load.record(tmp_path, Amount(1, 2, first=2), base=image, promised=promised), seed=2)
    assert set(again.promises.stored) > set(promised.stored)
    assert again.run(40).problems == {}


def test_an_fsync_that_failed_before_a_restart_takes_back_nothing_that_was_promised_since(tmp_path: Path) -> None:
    """What SQLite recovers from the page cache may not be on the disk, and is not written again: the kernel takes it for clean."""
    store = Store(f"sqlite:///{tmp_path}/lab.db")
    store.open()

    def keep(tx: Transaction) -> None:
        tx.message(direction="in", analyzer="xn-1", kind="stray", body=b"line noise")

    store.call(keep)
    on_the_disk = {file.name: file.read_bytes() for file in tmp_path.glob("lab.db*") if not file.name.endswith((".lock", "-shm"))}
    store.call(keep)  # its fsync failed, so nobody was told that it is stored; then the daemon is killed
    in_the_cache = {file.name: file.read_bytes() for file in tmp_path.glob("lab.db*") if file.name in on_the_disk}
    assert in_the_cache["lab.db-wal"] != on_the_disk["lab.db-wal"]
    folder = tmp_path / "again"
    folder.mkdir()
    recording = load.record(folder, Amount(1, 2, first=3), base=in_the_cache)
    disk_then = {str(folder / name): content for name, content in on_the_disk.items()}
    assert Cuts(recording._replace(base=disk_then), seed=1, daemons=False).run(80).problems == {}
    store.close()


def test_an_fsync_that_fails_takes_back_nothing_that_was_promised(tmp_path: Path) -> None:
    """Every fifth fsync fails, and what it was to write never reaches the disk."""
    recording = load.record(tmp_path, load.FAILING, failing=5)
    assert sum(call.kind == "failed" for call in recording.calls) > 5
    assert Cuts(recording, seed=1, daemons=False).run(80).problems == {}


def test_a_commit_that_is_believed_although_its_fsync_failed_is_found(tmp_path: Path) -> None:
    recording = load.record(tmp_path, Amount(1, 4), "failure-not-noticed", failing=5)
    found = Cuts(recording, seed=1, daemons=False).run(40).kinds()
    assert "acknowledged, but not in the journal" in found or "a frame was acknowledged, and is nowhere" in found, found


@pytest.mark.parametrize("change", TAMPERED)
def test_whatever_is_wrong_with_a_store_is_told(change: str, cuts: Cuts, tmp_path: Path) -> None:
    store = _put(cuts.recording.disk().everything(), tmp_path)
    assert promises.judge(store, cuts.promises) == []
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript(change)
    assert TAMPERED[change] in {problem.partition(":")[0] for problem in promises.judge(store, cuts.promises)}


def test_what_is_settled_must_have_been_answered(cuts: Cuts, tmp_path: Path) -> None:
    store = _put(cuts.recording.disk().everything(), tmp_path)
    unanswered = dataclasses.replace(cuts.promises, answered={})
    assert {one.partition(":")[0] for one in promises.judge(store, unanswered)} == {"settled, and the hospital had not answered"}
    assert promises.judge(tmp_path / "none", cuts.promises) == ["the store is empty"]


@pytest.mark.parametrize("fault", BROKEN)
def test_a_planted_fault_is_found(fault: str, tmp_path: Path) -> None:
    """The same harness, and a daemon with one mistake in it: some images are enough for most, 400 for each."""
    cuts = Cuts(load.record(tmp_path, Amount(1, 4), fault), seed=1, daemons=False)
    judged = (found for start in range(0, 400, 40) for _, found, _ in cuts.check(range(start, start + 40)))
    assert any(problem.startswith(BROKEN[fault]) for found in judged for problem in found)


def test_what_arrives_after_a_power_cut_is_held_against_what_was_promised() -> None:
    def ordered(specimen: str, value: str, control_id: str) -> tuple[str, bytes]:
        return control_id, f"MSH|^~\\&|||||||ORU|{control_id}\rOBR|1||{specimen}|\rOBX|1|NM|WBC||{value}|\r".encode()

    one, two, three = ordered("11", "4.50", "A"), ordered("11", "5.50", "B"), ordered("12", "4.50", "C")
    stored = [(1, message) for _, message in (one, two, three)]
    promised = promises.Promises(stored=stored, sent=[(2, *one), (3, *three)], answered={"C": 4})
    assert promises.judge_arrivals(promised, [one, two]) == []
    assert promises.judge_arrivals(promised, [one, two, three]) == [], "an answer may be lost: a repeat is no fault"
    assert [one.partition(":")[0] for one in promises.judge_arrivals(promised, [two])] == [
        "acknowledged before the power cut, never delivered",
        "sent before the power cut, and not again",
    ]
    assert promises.judge_arrivals(promised, [two, one]) == ["out of order: 11 ['5.50', '4.50']"]
    assert promises.judge_arrivals(promised, [(one[0], one[1] + b"Z"), two]) == ["sent again with other bytes: A"]
    twice = promises.judge_arrivals(promised, [one, two, ordered("12", "4.50", "D")])
    assert twice == ["delivered twice under different ids: ('12', '4.50')"]


# -- the tracer --------------------------------------------------------------------------------------------------------

_THREADS = """
import os, sys, threading
def work(number):
    with open(f"{sys.argv[1]}.{number}", "wb", buffering=0) as file:
        for step in range(50):
            os.pwrite(file.fileno(), b"%d,%d;" % (number, step), step * 97)
            if step % 10 == 0:
                os.fsync(file.fileno())
            os.ftruncate(file.fileno(), step * 90)
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
os.rename(f"{sys.argv[1]}.0", f"{sys.argv[1]}.9")
os.unlink(f"{sys.argv[1]}.1")
os.chdir(os.path.dirname(sys.argv[1]))
os.rename(os.path.basename(sys.argv[1]) + ".2", "gone")
"""

_UNKNOWN = {
    "mmap": "import mmap; file = open(NAME, 'w+b'); file.truncate(9); mmap.mmap(file.fileno(), 9)[0] = 1",
    "write": "open(NAME, 'wb').write(b'not at a place')",
    "pwritev2": "import os; os.pwritev(os.open(NAME, os.O_CREAT | os.O_WRONLY), [b'1', b'2'], 0)",
    "fallocate": "import os; os.posix_fallocate(os.open(NAME, os.O_CREAT | os.O_WRONLY), 0, 9)",
}


def _trace(folder: Path, code: str, *arguments: str) -> Disk:
    command = [sys.executable, tracer.__file__, str(folder / "trace"), str(folder / "file"), sys.executable, "-c", code]
    subprocess.run([*command, *arguments], check=True, timeout=60)
    return Disk(disk.load(folder / "trace"))


def test_the_trace_of_many_threads_is_what_the_files_hold(tmp_path: Path) -> None:
    held = _trace(tmp_path, _THREADS, str(tmp_path / "file")).everything()
    assert sorted(Path(name).name for name in held) == ["file.3", "file.9", "gone"]
    assert {name: Path(name).read_bytes() for name in held} == held


@pytest.mark.parametrize("way", _UNKNOWN)
def test_a_way_of_writing_that_is_not_modelled_is_told(way: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=rf"not modelled.*'{way} "):
        _trace(tmp_path, _UNKNOWN[way].replace("NAME", repr(str(tmp_path / "file"))))


def test_a_trace_that_breaks_off_is_told(tmp_path: Path) -> None:
    _trace(tmp_path, f"open({str(tmp_path / 'file')!r}, 'wb')")
    trace = tmp_path / "trace"
    trace.write_bytes(trace.read_bytes()[:-3])
    with pytest.raises(TraceError, match="did not come to its end"):
        disk.load(trace)


# -- the disk ----------------------------------------------------------------------------------------------------------


def _calls(*steps: tuple[str, int, bytes], name: str = "/d/a") -> list[Call]:
    """Calls on one file, one after the other."""
    listed = [Call(2 * at, 2 * at + 1, kind, 7, name, offset, data) for at, (kind, offset, data) in enumerate(steps, 1)]
    return [*listed, Call(1000, 1001, "end", 0)]


def _found(calls: list[Call], position: int = 1000, manner: str = "") -> set[bytes | None]:
    """Everything that many throws of dice make of /d/a; None where it is not there."""
    drive = Disk(calls)
    drive.advance(position)
    return {drive.image(random.Random(seed), manner).get("/d/a") for seed in range(400)}


MADE = (("create", 0, b""), ("syncdir", 0, b""))
A, B = b"a" * SECTOR, b"b" * SECTOR


@pytest.mark.parametrize("manner", MANNERS)
def test_what_was_synced_is_certain(manner: str) -> None:
    assert _found(_calls(*MADE, ("write", 0, A + B), ("truncate", SECTOR + 5, b""), ("sync", 0, b"")), manner=manner) == {A + B[:5]}


def test_a_sync_covers_what_had_returned_when_it_began() -> None:
    before = _calls(*MADE, ("write", 0, A), ("sync", 0, b""))
    assert _found(before, position=before[-2].returned) > {A, b""}, "not before it has returned"
    *made, write, sync, end = before
    late = [*made, write._replace(returned=sync.entered + 1), sync._replace(returned=sync.returned + 1), end]
    assert _found(late) > {A, b""}, "a write beside it is not covered"


def test_writes_are_lost_reordered_and_torn_and_lengths_come_without_data() -> None:
    found = _found(_calls(*MADE, ("write", 0, A + A), ("write", SECTOR, B + B), ("write", 0, B)))
    zeros = bytes(SECTOR)
    assert found > {b"", A + A, A + B + B, B + B + B, B, zeros + B + B, A, A + zeros, B + A, bytes(3 * SECTOR)}
    sectors = {one[at : at + SECTOR] for one in found if one for at in range(0, len(one), SECTOR)}
    assert sectors == {A, B, zeros}, "a sector is whole"


def test_a_name_is_certain_after_the_folders_fsync() -> None:
    assert _found(_calls(("create", 0, b""), ("write", 0, A), ("sync", 0, b""))) == {None, A}, "by the stricter rule alone"
    assert _found(_calls(*MADE, ("unlink", 0, b""))) == {None, b""}
    assert _found(_calls(*MADE, ("unlink", 0, b""), ("syncdir", 0, b""))) == {None}
    assert _found(_calls(*MADE, ("write", 0, A), ("rename", 0, b""), name="/d/a\0/d/b")) <= {None, b"", A}


def test_a_journaling_file_system_keeps_the_name_of_what_was_synced() -> None:
    drive = Disk(_calls(("create", 0, b""), ("write", 0, A), ("sync", 0, b"")))
    drive.advance(1000)
    assert sum("/d/a" in drive.image(random.Random(seed)) for seed in range(400)) > 250, "always by one rule, at times by the other"


def test_boundaries_are_before_and_after_each_durable_step() -> None:
    calls = _calls(*MADE, ("write", 0, A), ("write", 0, B), ("sync", 0, b""), ("sent", 0, b"\x06"))
    assert boundaries(calls) == [2, 3, 6, 9, 12, 13]
