"""One laboratory under torture: the daemon, patient analyzers of both protocols, a hospital, and the model beside them.

The analyzers are threads that send again whatever was not acknowledged, and take the time of every answer. What is done to
the daemon meanwhile is the business of ``classes``; ``judge`` then holds everything against the model of tests/faults.
"""

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labbridge.store import Reader
from tests.faults.harness import OURS, state_of
from tests.faults.model import Model, Score
from tests.support import AstmClient, Hospital, Laboratory, MllpClient, wait_until
from tests.torture import launcher
from tests.torture.meddler import Step

DEVICES = ("hl7", "astm", "hl7", "astm")
ANSWER_S = 15.0  # an analyzer waits so long, by LIS01-A2; here an HL7 analyzer as well
SCALED_S = 1.0  # the daemon's own time to answer where a store that stalls must be answered for: 12 s, scaled down
SCALED_ANSWER_S = 2.0  # and what the analyzer then waits
THINKS_S = 0.005  # the hospital thinks so long, so that more than one message of a specimen waits in its lane


class Timed:
    """Takes the time of every answer of the daemon; ``limit`` is what the analyzer's protocol allows."""

    slowest = 0.0
    missed = 0
    limit = ANSWER_S

    def _timed(self, wait: Any) -> Any:
        began = time.monotonic()
        try:
            return wait()
        except ConnectionError:
            began = time.monotonic()  # a daemon that is dead owes no answer
            raise
        finally:
            took = time.monotonic() - began
            self.slowest = max(self.slowest, took)
            self.missed += took > self.limit


class TimedMllp(Timed, MllpClient):
    def answer(self) -> bytes:
        return bytes(self._timed(super().answer))


class TimedAstm(Timed, AstmClient):
    def read(self) -> bytes:
        return bytes(self._timed(super().read))


class Device(threading.Thread):
    """An analyzer of one connection: sends each message until it is acknowledged."""

    def __init__(self, number: int, protocol: str, stand: "Stand") -> None:
        super().__init__(daemon=True)
        self.protocol, self.stand = protocol, stand
        self.source: Iterator[bytes] = stand.model.source(number, protocol)
        self.client: Any = None
        self.slowest, self.missed = 0.0, 0

    def run(self) -> None:
        stop = self.stand.stop
        while not stop.is_set():
            message = next(self.source)
            until = None
            while not self._sent(message):
                if stop.is_set():
                    until = until or time.monotonic() + 5  # what is in flight may still be answered
                    if time.monotonic() > until:
                        break
                time.sleep(0.02)
            else:
                self.stand.model.heard(message, "accept")
        self.hang_up()

    def _sent(self, message: bytes) -> bool:
        try:
            if self.client is None:
                lab = self.stand.laboratory
                self.client = TimedMllp(lab.hl7) if self.protocol == "hl7" else TimedAstm(lab.astm)
                self.client.limit = self.stand.limit
            if self.protocol == "hl7":
                return b"MSA|AA" in self.client.send(message)
            return bool(self.client.send(message.decode().rstrip("\r").split("\r")))
        except OSError:
            if self.protocol == "astm" and self.client is not None and self.client.acknowledged:
                records = message.split(b"\r")[: self.client.acknowledged]
                self.stand.broken.append((b"".join(record + b"\r" for record in records), message))
            self.hang_up()
            return False

    def hang_up(self) -> None:
        if self.client is not None:
            self.slowest = max(self.slowest, self.client.slowest)
            self.missed += self.client.missed
            self.client.close()
            self.client = None


class Daemons:
    """The lives of one daemon; ``fault`` is planted in each of them."""

    def __init__(self, folder: Path, laboratory: Laboratory, fault: str) -> None:
        self.folder, self.laboratory, self.fault = folder, laboratory, fault
        self.plan, self.told = folder / "plan.json", folder / "told"
        self.listening: list[float] = []  # seconds until a life that was not traced accepted
        self.traced = False

    def live(self, step: Step | None = None, *, traced: bool = False) -> None:
        """Starts a life of the daemon, traced when a step is to befall it; it need not come to accepting then."""
        self.traced = traced or step is not None
        before: list[str] = []
        if self.traced:
            lab = self.laboratory
            ports = {"hl7": lab.hl7, "astm": lab.astm, "hospital": lab.his}
            meddler = [sys.executable, "-m", "tests.torture.meddler", str(self.plan), str(self.told), str(self.folder / "lab.db")]
            self.plan.unlink(missing_ok=True)
            if step:
                self.plan.write_text(json.dumps(step._asdict()))
            before = [*meddler, json.dumps(ports)]
        if self.fault:
            before += [sys.executable, launcher.__file__, self.fault]
        if step:
            self.laboratory.launch(*before)
        else:
            seconds = self.laboratory.start(*before)
            if not self.traced:
                self.listening.append(seconds)

    def alive(self) -> bool:
        process = self.laboratory.process
        return process is not None and process.poll() is None

    def kill(self) -> None:
        """kill -9; what traces the daemon ends after it."""
        if self.traced and self.alive():
            self.laboratory.signal(10)  # SIGUSR1
            self.laboratory.process.wait(30)  # type: ignore[union-attr]
        else:
            self.laboratory.kill()

    def befall(self, step: Step, seconds: float = 20.0) -> int:
        """Lets a step befall the traced daemon that runs; how many calls it befell."""
        before = len(self.done())
        self.plan.write_text(json.dumps(step._asdict()))
        self.laboratory.signal(12)  # SIGUSR2
        wait_until(lambda: len(self.done()) > before, seconds, f"{step} befalls")
        return int(self.done()[-1]["befallen"])

    def done(self) -> list[dict[str, Any]]:
        """What has befallen traced lives."""
        return [json.loads(line) for line in self.told.read_text().splitlines()] if self.told.exists() else []


class Stand(Daemons):
    """``scaled``: the daemon has a second to answer an analyzer; ``fault`` is planted in every life of the daemon.

    ``server`` is PostgreSQL; ``patience``: so many seconds for the queue to drain, and for the daemon to acknowledge again.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        url: str = "sqlite:///lab.db",
        scaled: bool = False,
        fault: str = "",
        server: Any = None,
        patience: float = 10.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.url = url.replace("sqlite:///", f"sqlite:///{folder}/")
        changes = [('codes = "his"\n', "")]
        if scaled:  # both tables of analyzers end where another begins
            timers = f'[analyzer.timers]\nanswer = "{SCALED_S:g}s"\n\n'
            heads = ('[[analyzer]]\nname = "bc-1"', "[[destination]]")
            changes += [(head, timers + head) for head in heads]
        super().__init__(folder, Laboratory(folder, self.url, repeat="latest-measured", timeout="2s", changes=changes), fault)
        self.limit = SCALED_ANSWER_S if scaled else ANSWER_S
        self.server, self.patience = server, patience
        self.model, self.score, self.stop = Model(seed, 100), Score(), threading.Event()
        self.hospital = Hospital(self.laboratory.his, self._answer).start()
        self.devices = [Device(number, protocol, self) for number, protocol in enumerate(DEVICES)]
        self.broken: list[tuple[bytes, bytes]] = []  # the acknowledged frames of a message that broke off, and the message

    def _answer(self, message: bytes) -> str:
        time.sleep(THINKS_S)
        return "AA"

    # -- the load --------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """The analyzers begin."""
        for device in self.devices:
            device.start()

    def acknowledged(self) -> int:
        return len(self.model.acknowledged)

    def goes_on(self, messages: int = 8) -> None:
        """So many messages are acknowledged from now on; raises AssertionError where they are not."""
        target = self.acknowledged() + messages
        wait_until(lambda: self.acknowledged() >= target, self.patience, "the daemon acknowledges again")

    # -- the judgement ---------------------------------------------------------------------------------------------

    def judge(self) -> Score:
        """Lets everything come to its end, and scores it."""
        self.stop.set()
        for device in self.devices:
            if device.ident:
                device.join(90)
        self.score.slowest = max(device.slowest for device in self.devices)
        for device in self.devices:
            for _ in range(device.missed):
                self.score.against("missed", f"an analyzer waited longer than {self.limit} s")
        with closing(Reader(self.url)) as reader:
            try:
                wait_until(lambda: not reader.queued(), self.patience, "the queue drains")
            except AssertionError as error:
                self.score.problems.append(f"stuck: {error}")
            self.model.taken = self.hospital.got()
            self.model.judge(self.score, lambda key: state_of(self.model, reader, key))
        if self.server is None:
            self._judge_frames()
        said = self.laboratory.log.read_bytes()
        self.score.problems += [f"the daemon's log says {word.decode()}" for word in OURS if word in said]
        return self.score

    def _judge_frames(self) -> None:
        """What was acknowledged of a message that broke off is in the journal: as such, or because all of it had been stored."""
        with closing(sqlite3.connect(self.folder / "lab.db")) as store:
            partly = [body for (body,) in store.execute("SELECT body FROM message WHERE kind = 'incomplete'")]
            for text, message in self.broken:
                if any(body.startswith(text) for body in partly):
                    continue
                whole = "SELECT count(*) FROM message WHERE kind IN ('stored', 'duplicate') AND body = ?"
                if store.execute(whole, (message,)).fetchone()[0] < 2:
                    self.score.against("lost", f"acknowledged frames that are nowhere: {len(text)} bytes of {message[-80:]!r}")

    def close(self) -> None:
        """Ends everything."""
        self.stop.set()
        if self.alive():
            self.kill()
        self.hospital.stop()
        for device in self.devices:
            with suppress(RuntimeError):
                device.join(10)

    def result(self) -> dict[str, Any]:
        """The score, and what else is known of it, for the state on the disk."""
        return {**asdict(self.score), "listening": self.listening}
