"""The daemon as a process, faulty analyzers (half HL7, half ASTM), a faulty hospital, and the model beside them.

The simulators run here, on a reactor that is turned by hand. When the time is up the faults end, what is under way comes
to its end, the queue drains, and the model judges.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from labbridge import profiles
from labbridge.simulators import AnalyzerSimulator, Hospital
from labbridge.simulators.faults import FAULTS, Faults, of
from labbridge.store import Reader
from tests.faults.model import Key, Model, Score
from tests.loop import Loop
from tests.support import Laboratory

ROOT = Path(__file__).parents[2]
PROFILES = {"astm": "sysmex-xn", "hl7": "mindray-bc"}
ZONE = ZoneInfo("Asia/Shanghai")
ALL = "all"
KINDS = 13  # of faults, at the least, when all are mixed
OURS = (b"Traceback", b"reader failed", b"decision failed", b"a fault while")  # what the daemon's log must not say
_first_specimens = count(100, 100)  # no two runs on one store share any; a run has at most a hundred analyzers


class Load(NamedTuple):
    """How long and how hard: ``pace`` is by what the times of the analyzers' faults are multiplied.

    A run that has seen fewer than ``few`` messages proves nothing, and goes on.
    """

    seconds: float
    connections: int
    seed: int = 0
    rate: float = 5.0  # messages a second and analyzer
    pace: float = 1.0
    excess: int = 17 << 20  # bytes of what is beyond every limit
    few: int = 10
    share: float = 0.2  # of the messages that a fault befalls, alone; the hospital's a quarter of that
    sides: tuple[str, ...] = ()  # these alone are faulty; all that can be, where none is named
    befall: int = 3  # so often it befalls each of them, at the least


def laboratory(folder: Path, limit: str = "16MiB", before: Sequence[str] = ()) -> Laboratory:
    """A daemon that nobody has to help: what is refused is sent again, a later measurement replaces an earlier one.

    ``limit`` is that of a message; ``before`` is a command that runs the daemon.
    """
    answers = '[destination.answers]\nAE = "retry"\nAR = "retry"\n\n[[route]]\nto = "his"'
    changes = (('codes = "his"\n', ""), ('[[route]]\nto = "his"', answers), ("connections = 4", "connections = 16"))
    limits = [("max_connections = 64", f'max_connections = 65\nmax_message = "{limit}"')] * 2  # of both analyzers
    lab = Laboratory(folder, repeat="latest-measured", timeout="1s", changes=(*changes, *limits))
    lab.start(*before)
    return lab


class Fray:
    """One run against a laboratory."""

    def __init__(self, lab: Laboratory, fault: str, load: Load) -> None:
        self.lab, self.load, self.loop, self.score = lab, load, Loop(), Score()
        self.model = Model(load.seed, next(_first_specimens))
        self.faults = {side: self._faults(side, fault) for side in ("astm", "hl7", "hospital")}
        self.kinds = KINDS if fault == ALL else 0
        self.hospital = Hospital(self.loop, "127.0.0.1", lab.his, faults=self.faults["hospital"], told=self.model.took)
        self.analyzers = [self._analyzer(number) for number in range(load.connections)]

    def _faults(self, side: Any, fault: str) -> Faults:
        share = self.load.share / (4 if side == "hospital" else 1)
        names = list(of(side)) if fault == ALL else [fault] if side in FAULTS[fault].sides else []
        if self.load.sides and side not in self.load.sides:
            names = []
        rates = {name: share if fault != ALL else min(share, 0.5 / len(names)) for name in names}
        pace = 0.1 if side == "hospital" else self.load.pace  # its time-out is a second
        excess = 17 << 20 if side == "hospital" else self.load.excess
        return Faults(rates, random.Random(f"{self.load.seed} {side}"), pace=pace, excess=excess)

    def _analyzer(self, number: int) -> AnalyzerSimulator:
        protocol = ("hl7", "astm")[number % 2]
        profile = profiles.load(PROFILES[protocol], [ROOT / "analyzers"])
        port = self.lab.hl7 if protocol == "hl7" else self.lab.astm
        source: Iterator[bytes] = self.model.source(number, protocol)
        return AnalyzerSimulator(
            self.loop,
            profile,
            Path(),
            "127.0.0.1",
            port,
            ZONE,
            rate=self.load.rate,
            faults=self.faults[protocol],
            source=source.__next__,
            told=self.model.heard,
        )

    def run(self) -> Score:
        """Fights it out; the score's counters are 0 when every promise held."""
        log = self.lab.log.stat().st_size
        try:
            self._fight()
        finally:
            self.loop.dispose()
        with closing(Reader(f"sqlite:///{self.lab.folder}/lab.db")) as reader:
            self.model.judge(self.score, partial(state_of, self.model, reader))
        with self.lab.log.open("rb") as file:
            file.seek(log)
            said = file.read()
        self.score.problems += [f"the daemon's log says {word.decode()}" for word in OURS if word in said]
        return self.score

    def _fight(self) -> None:
        load, score = self.load, self.score
        self.hospital.start()
        for analyzer in self.analyzers:
            analyzer.start()
        end = time.monotonic() + load.seconds
        self.loop.until(lambda: time.monotonic() > end and self._befell(), load.seconds + 30)
        score.drawn = dict(self._drawn())
        for faults in self.faults.values():
            faults.rates = {}
        for analyzer in self.analyzers:
            analyzer.stopping = True
        self._until(lambda: all(analyzer.done for analyzer in self.analyzers), 30 + 100 * load.pace, "not acknowledged")
        for analyzer in self.analyzers:
            analyzer.stop()
        self._until(lambda: not any(analyzer.connected for analyzer in self.analyzers), 30, "not disconnected")
        with closing(Reader(f"sqlite:///{self.lab.folder}/lab.db")) as reader:
            self._until(lambda: not reader.queued(), 60, "not delivered")
        score.slowest = max(analyzer.slowest for analyzer in self.analyzers)
        for analyzer in self.analyzers:
            for _ in range(analyzer.missed):
                score.against("missed", "an analyzer waited longer than its protocol allows")

    def _befell(self) -> bool:
        """Whether something has happened, wherever something is to happen, and to enough messages."""
        enough = len(self.model.acknowledged) > self.load.few and len(self._drawn()) >= self.kinds
        return enough and all(
            faults.drawn.total() >= self.load.befall for faults in self.faults.values() if any(faults.rates.values())
        )

    def _drawn(self) -> Counter[str]:
        """How often each fault has befallen anyone."""
        return sum((faults.drawn for faults in self.faults.values()), Counter())

    def _until(self, done: Any, seconds: float, what: str) -> None:
        try:
            self.loop.until(done, seconds)
        except AssertionError:
            self.score.problems.append(f"{what} within {seconds} s")


def state_of(model: Model, reader: Reader, key: Key) -> str:
    """The state of the report on this version of a specimen; empty when the journal has none."""
    values = [f'"{value}"'.encode() for value in model.values[key].values()]
    reports = reader.reports_of(key[0])
    return next((report.state for report in reports if all(value in report.document for value in values)), "")


def faults(lab: Laboratory, fault: str, load: Load) -> Score:
    """Runs one fault, or "all" mixed, against a laboratory that runs."""
    return Fray(lab, fault, load).run()
