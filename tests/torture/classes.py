"""The classes of torture: what each does in one round, how many rounds make its share of the evidence, what is planted to prove it.

A chunk is some rounds on one laboratory; it is judged at its end, and is what an interrupted run begins again with. Whatever
a round draws hangs on the seed, the class and the round's number alone, so ``--round K`` does the same to another laboratory.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from labbridge.simulators.faults import of
from tests.faults.harness import Load, faults
from tests.faults.harness import laboratory as faulty_laboratory
from tests.store.postgres import Server
from tests.support import wait_until
from tests.torture import launcher, person
from tests.torture.meddler import Step
from tests.torture.stand import Stand

Round = Callable[[Stand, int, random.Random], str]


def dice_of(seed: int, name: str, number: int) -> random.Random:
    """The chance of one round."""
    return random.Random(f"{seed} {name} {number}")


# -- kill ----------------------------------------------------------------------------------------------------------------

WHERE = {  # every kind of durable boundary, and which of its calls at the latest
    "wal write": 120, "wal fsync": 25, "db write": 60, "db fsync": 2, "hl7 send": 20, "astm send": 60,
    "hospital send": 25, "hospital receive": 25,
}  # fmt: skip
BOUNDARIES = [(on, do) for on in WHERE for do in ("kill-before", "kill-after")]
KILLS = len(BOUNDARIES) + 4  # of these: at each boundary, in the making of the store twice, at a random moment (untraced) twice


def kill(stand: Stand, number: int, dice: random.Random) -> str:
    """One life of the daemon, ended by kill -9 at a durable boundary or at a random moment."""
    place = number % KILLS
    if place < len(BOUNDARIES):
        on, do = BOUNDARIES[place]
        stand.live(Step(on, dice.randint(1, WHERE[on]), do))
        name = f"{do[5:]} {on}"
        if not _ends(stand, 12):
            name = "at a random moment, traced"
    elif place < len(BOUNDARIES) + 2:
        for file in stand.folder.glob("lab.db*") if not stand.acknowledged() else ():
            file.unlink()
        stand.live(Step("any any", dice.randint(1, 60), ("kill-before", "kill-after")[place % 2]))
        name = "among the first calls of a life" if _ends(stand, 12) else "at a random moment, traced"
    else:
        stand.live()
        before = stand.acknowledged()
        time.sleep(dice.uniform(0, 0.5))
        wait_until(lambda: stand.acknowledged() > before + 4, 10, "there is a load")
        name = "at a random moment"
    stand.kill()
    return name


def _ends(stand: Stand, seconds: float) -> bool:
    """Whether the step befalls; what does not come to its boundary in time is killed where it is."""
    end = time.monotonic() + seconds
    while stand.alive() and time.monotonic() < end:
        time.sleep(0.005)
    return not stand.alive()


# -- disk and stall ------------------------------------------------------------------------------------------------------

DISK = [
    ("wal write", "ENOSPC"), ("wal fsync", "EIO"), ("any any", "ENOSPC"), ("db write", "ENOSPC"), ("any fsync", "EIO"),
    ("wal write", "short"), ("db fsync", "EIO"), ("wal write", "EIO"), ("db write", "short"), ("any any", "EIO"),
]  # fmt: skip


def disk(stand: Stand, number: int, dice: random.Random) -> str:
    """The disk is full, or an fsync fails, once or for a while; every third time the daemon is killed right after.

    Half of those begin their next life on a disk that fails at once: they may end, and say why, but then start again.
    """
    on, do = DISK[number % len(DISK)]
    _ready(stand)
    seconds = dice.choice((0.0, 0.0, dice.uniform(0.2, 1.5))) if do != "short" else 0.0
    befallen = stand.befall(Step(on, dice.randint(1, 6), do, seconds))
    if dice.random() < 1 / 3:
        stand.kill()
        if do != "short" and dice.random() < 1 / 2:
            stand.live(Step("any any", dice.randint(1, 12), do, 0.5))
            wait_until(lambda: not stand.alive() or stand.laboratory.accepting(), 10, "the daemon starts, or ends")
        _ready(stand)
    stand.goes_on()
    return f"{do} at {on}" if befallen else "nothing befell"


def stall(stand: Stand, number: int, dice: random.Random) -> str:
    """A write or an fsync takes seconds: longer than an analyzer may wait, by timers that are scaled down."""
    on = ("wal write", "wal fsync", "db write", "db fsync")[number % 4]
    _ready(stand)
    befallen = stand.befall(Step(on, dice.randint(1, 4), "stall", dice.uniform(1.5, 4.0)))
    stand.goes_on()
    return f"stall at {on}" if befallen else "nothing befell"


def _ready(stand: Stand) -> None:
    """A traced daemon runs."""
    if not stand.alive():
        stand.live(traced=True)


# -- what else a machine does --------------------------------------------------------------------------------------------


def machine(stand: Stand, number: int, dice: random.Random) -> str:
    """A trouble of the machine, of a few seconds: the clock, another process in the store, no processor to be had."""
    if not stand.alive():
        stand.live()
    name = tuple(MACHINE)[number % len(MACHINE)]
    with MACHINE[name](stand, dice):
        time.sleep(dice.uniform(0.5, 3.0))
    stand.goes_on()
    return name


@contextmanager
def _clock(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The clock goes back or forth by up to a day, and is right again afterwards."""
    file = Path(f"{stand.laboratory.config}.clock")
    file.write_text(str(dice.choice((-1, 1)) * dice.choice((0.5, 60, 3600, 86400))))
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def _locked(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Another process begins to write and does not end: what it holds, no one else can have."""
    with closing(sqlite3.connect(stand.folder / "lab.db", timeout=20, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
rows = connection.execute("SELECT * FROM message")
rows.fetchone()
print("reads", flush=True)
rows.fetchall()
sys.stdin.read()
"""


@contextmanager
def _reader(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A process reads, and is stopped in the midst of its query (SIGSTOP); then it is killed."""
    command = [sys.executable, "-c", READER, str(stand.folder / "lab.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _busy(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Every processor has something else to do, twice."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


MACHINE = {"clock jump": _clock, "store locked": _locked, "stopped reader": _reader, "all processors busy": _busy}


def doubt(stand: Stand, number: int, dice: random.Random) -> str:
    """The answer of every tenth commit is lost; every third time the daemon is killed a little later."""
    if not stand.alive():
        stand.live()
    stand.goes_on(dice.randint(10, 40))
    if number % 3 == 2:
        stand.kill()
    return "answers of commits lost"


# -- PostgreSQL ----------------------------------------------------------------------------------------------------------


def postgres(stand: Stand, number: int, dice: random.Random) -> str:
    """The daemon is killed, or the server stopped at once and started again, or both."""
    server: Server = stand.server
    if not stand.alive():
        stand.live()
    before = stand.acknowledged()
    time.sleep(dice.uniform(0, 0.4))
    wait_until(lambda: stand.acknowledged() > before + 4, 10, "there is a load")
    what = ("kill", "restart", "both")[number % 3]
    if what != "kill":
        server.stop()
        time.sleep(dice.choice((0.0, dice.uniform(0, 2))))
    if what != "restart":
        stand.kill()
    if what != "kill":
        server.start()
    if what != "restart":
        stand.live()
    return {"kill": "daemon killed", "restart": "server stopped and started", "both": "both"}[what]


# -- the classes ---------------------------------------------------------------------------------------------------------


class Class(NamedTuple):
    """``rounds`` are those of the evidence, ``chunk`` of them have one laboratory."""

    rounds: int
    chunk: int
    run: Callable[["Class", "Chunk", Path], dict[str, Any]]
    round: Round | None = None
    scaled: bool = False
    under: str = ""  # what the launcher does to every life besides
    planted: tuple[tuple[str, int], ...] = ()  # mistakes that must be found, and in how many rounds


class Chunk(NamedTuple):
    """Some rounds of a class, of a seed, with a planted fault or none."""

    name: str
    seed: int
    numbers: Sequence[int]
    fault: str = ""

    @property
    def key(self) -> str:
        return f"{self.name} {self.seed} {self.numbers[0]}-{self.numbers[-1]} {self.fault}".strip()


def _on_a_stand(kind: Class, chunk: Chunk, folder: Path, **options: Any) -> dict[str, Any]:
    seed, fault = chunk.seed * 1_000_003 + chunk.numbers[0], "+".join(filter(None, (kind.under, chunk.fault)))
    stand = Stand(folder, seed, scaled=kind.scaled, fault=fault, patience=1.0 if chunk.fault else 10.0, **options)
    happened: Counter[str] = Counter()
    assert kind.round
    try:
        stand.load()
        for number in chunk.numbers:
            happened[kind.round(stand, number, dice_of(chunk.seed, chunk.name, number))] += 1
        if not stand.alive():
            stand.live()
        stand.judge()
    except Exception as error:
        stand.score.problems.append(f"stuck: {type(error).__name__}: {str(error)[-600:]}")
        stand.judge()
    finally:
        stand.close()
    return {**stand.result(), "happened": happened}


def _on_postgresql(kind: Class, chunk: Chunk, folder: Path) -> dict[str, Any]:
    """As on a stand; the server syncs its own log, and has a folder that its user can reach."""
    place = Path(tempfile.mkdtemp(prefix="labbridge-"))
    server = Server(place, fsync=True)
    try:
        with server.database() as url:
            return _on_a_stand(kind, chunk, folder, url=url, server=server)
    finally:
        server.close()
        shutil.rmtree(place)


def _in_a_fray(names: Sequence[str], sides: tuple[str, ...]) -> Callable[[Class, Chunk, Path], dict[str, Any]]:
    """Faults of the simulators, as many as the chunk has rounds, in equal shares; none of them is replayed alone."""

    def run(kind: Class, chunk: Chunk, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        before = [sys.executable, launcher.__file__, chunk.fault] if chunk.fault else []
        lab = faulty_laboratory(folder, "512KiB", before)
        total: dict[str, Any] = {}
        try:
            for name, share in Counter(names[number % len(names)] for number in chunk.numbers).items():
                seed = chunk.seed * 1_000_003 + chunk.numbers[0]
                befall = -(-share // len(sides))
                load = Load(
                    0.3, 6, seed, 25.0, 0.02, 1 << 20, share=0.25 * (4 if sides == ("hospital",) else 1), sides=sides, befall=befall
                )
                score = faults(lab, name, load)
                total = add(total, {**asdict(score), "happened": score.drawn})
        finally:
            lab.kill()
        return total

    return run


def _with_the_hospital(kind: Class, chunk: Chunk, folder: Path) -> dict[str, Any]:
    """A part of the rounds stops the hospital and starts it again, the others are faults of the simulated one."""
    down = chunk._replace(numbers=[number for number in chunk.numbers if number % 10 == 0])
    others = chunk._replace(numbers=[number for number in chunk.numbers if number % 10])
    answers = _in_a_fray(tuple(of("hospital")), ("hospital",))
    results = [
        one(kind, part, folder / name)
        for name, one, part in (("down", _on_a_stand, down), ("faulty", answers, others))
        if part.numbers
    ]
    return add(results[0], results[-1]) if len(results) == 2 else results[0]


def _with_a_person(kind: Class, chunk: Chunk, folder: Path) -> dict[str, Any]:
    """The daemon is killed while a person changes what it has decided."""
    return person.on_a_bench(chunk, folder, dice_of)


def down(stand: Stand, number: int, dice: random.Random) -> str:
    """The hospital is not there for a while."""
    if not stand.alive():
        stand.live()
    stand.hospital.stop()
    time.sleep(dice.uniform(0.2, 2.0))
    stand.goes_on()
    stand.hospital.start()
    time.sleep(0.3)
    return "down"


def add(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two results as one."""
    if not one:
        return other
    return {
        "acknowledged": one["acknowledged"] + other["acknowledged"],
        "taken": one["taken"] + other["taken"],
        "slowest": max(one["slowest"], other["slowest"]),
        "counts": {name: count + other["counts"][name] for name, count in one["counts"].items()},
        "problems": [*one["problems"], *other["problems"]][:50],
        "listening": [*one.get("listening", []), *other.get("listening", [])],
        "happened": dict(Counter(one["happened"]) + Counter(other["happened"])),
    }


CLASSES: dict[str, Class] = {
    "kill": Class(1600, 40, _on_a_stand, kill, planted=(("acknowledge-before-commit", 20), ("frames-not-kept", 40))),
    "disk": Class(150, 15, _on_a_stand, disk, scaled=True, planted=(("failure-not-noticed", 10),)),
    "stall": Class(60, 10, _on_a_stand, stall, scaled=True, planted=(("never-overdue", 4),)),
    "hospital": Class(
        560, 40, _with_the_hospital, down,
        planted=(("dropped-retry", 20), ("another-control-id", 20), ("swapped-specimen", 5), ("lane-order-ignored", 20)),
    ),
    "links": Class(240, 40, _in_a_fray(("reset",), ("astm", "hl7")), planted=(("broken-off-taken-for-whole", 20),)),
    "machine": Class(80, 8, _on_a_stand, machine, under="clock-jumps", planted=(("acknowledged-when-locked", 16),)),
    "doubt": Class(60, 10, _on_a_stand, doubt, under="commit-in-doubt", planted=(("acknowledged-when-locked", 4),)),
    "person": Class(160, 20, _with_a_person, planted=(("moves-forgotten", 24), ("moves-settled-too-early", 24))),
    "postgres": Class(320, 20, _on_postgresql, postgres, planted=(("no-fsync", 6),)),
}  # fmt: skip


def chunks(name: str, seed: int, rounds: int, fault: str = "") -> Iterator[Chunk]:
    """The chunks of so many rounds."""
    size = CLASSES[name].chunk
    for first in range(0, rounds, size):
        yield Chunk(name, seed, range(first, min(first + size, rounds)), fault)


def run(chunk: Chunk, folder: Path) -> dict[str, Any]:
    """Runs a chunk in a folder; the counts and problems of it, and how long it took."""
    began = time.monotonic()
    kind = CLASSES[chunk.name]
    return {**kind.run(kind, chunk, folder), "seconds": time.monotonic() - began}
