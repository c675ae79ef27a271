"""What a person does while the daemon is killed: values changed, critical values released, specimen ids corrected.

The model is what the hospital believes at the end: it takes every message in the order in which they came, and an OBX-11 W
takes a value away. What a person was told is done must be so; nothing may stay under an id that was corrected.
"""

import json
import random
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labbridge.asking import ask
from labbridge.commands import Request
from labbridge.store import Reader
from tests.faults.harness import OURS
from tests.faults.model import Score
from tests.support import Hospital, Laboratory, MllpClient, oru, wait_until
from tests.torture.meddler import Step
from tests.torture.stand import Daemons

WBC = "6690-2^WBC^LN"
DEEDS = ("move", "edit", "release", "move")
WARDS = ("answers", "silent", "down")  # the hospital, while the person is at work
CALLS = ("wal write", "wal fsync", "hospital send", "hospital receive")
BOUNDARIES = [(on, do) for on in CALLS for do in ("kill-before", "kill-after")]
PASSWORD = "correct horse"
SETTLED_S = 20.0  # an answer that does not come, and then what follows from it
Said = tuple[str, str, str]  # specimen, value, OBX-11


class Bench(Daemons):
    """A person, a colleague, and a hospital whose beliefs are known."""

    def __init__(self, folder: Path, fault: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, Laboratory(folder, f"sqlite:///{folder}/lab.db", repeat="latest-measured", timeout="2s"), fault)
        self.socket = folder / "labbridge.sock"
        self.silent = False
        self.hospital = Hospital(self.laboratory.his, lambda message: None if self.silent else "AA").start()
        self.score = Score()
        self.expected: dict[str, str] = {}  # what the hospital must believe of each specimen; empty: nothing

    # -- one round ---------------------------------------------------------------------------------------------------

    def round(self, number: int, dice: random.Random) -> str:
        """Results come, a person changes something, and the daemon dies meanwhile; then it lives, and the person looks again."""
        deed, ward = DEEDS[number % len(DEEDS)], WARDS[number % len(WARDS)]
        traced = number // len(DEEDS) % 2 == 0
        if self.alive():
            self.kill()
        self.live(traced=traced)
        specimen, right = f"7{number:06d}", f"8{number:06d}"
        value = "0.20" if deed == "release" else "5.50"
        self.silent = ward == "silent"
        if ward == "down":
            self.hospital.stop()
        with closing(MllpClient(self.laboratory.hl7)) as client:
            assert b"MSA|AA" in client.send(oru(specimen, 100 + number, [(WBC, value, "10*9/L")]))
        self.score.acknowledged += 1
        if deed == "release":
            wanted = [Request("release", specimen=specimen, reason="seen", told="Dr. Li", read_back=True)]
        elif deed == "edit":
            wanted = [Request("edit", specimen=specimen, tests=["WBC"], value="6.5", reason="diluted")]
        else:
            wanted = [Request("confirm-id", proposal=self.proposed(specimen, right), reason="checked")]
        if deed != "release" and ward == "silent":
            wait_until(lambda: self.has_heard(specimen), 10, "the hospital has it, and does not answer")
        befallen = len(self.done())
        told = self.dies(wanted[0], Step(*self.boundary(number, dice)) if traced else None, dice)
        where = "at a boundary" if len(self.done()) > befallen else "at a random moment"
        self.silent = False
        if ward == "down":
            self.hospital.start()
        self.live()
        done = self.is_done(deed, wanted[0])
        if told and not done:
            self.score.against("lost", f"{deed} of {specimen}: told to be done, and is not")
        if not done:
            assert ask(self.socket, wanted[0])["ok"]
        self.expected[specimen] = {"release": "0.20", "edit": "6.50", "move": ""}[deed]
        if deed == "move":
            self.expected[right] = "5.50"
        return f"{deed}, the hospital {ward}, killed {where}"

    @staticmethod
    def boundary(number: int, dice: random.Random) -> tuple[str, int, str]:
        """A durable boundary of what the command leads to."""
        on, do = BOUNDARIES[number // (2 * len(DEEDS)) % len(BOUNDARIES)]
        return on, dice.randint(1, 6 if on == "wal write" else 2), do

    def proposed(self, specimen: str, right: str) -> int:
        """A colleague's proposal."""
        account = Request("account-add", account="colleague", password=PASSWORD, role="supervisor", reason="shift")
        ask(self.socket, account)  # there may be such an account
        session = ask(self.socket, Request("login", account="colleague", password=PASSWORD))["answer"]["session"]
        asked = Request("correct-id", specimen=specimen, to=right, reason="swapped", session=session)
        return int(ask(self.socket, asked)["answer"]["proposal"])

    def dies(self, wanted: Request, step: Step | None, dice: random.Random) -> bool:
        """Gives a command and has the daemon killed, at a boundary or a moment later; whether it was told to be done."""
        answers: list[dict[str, Any]] = []

        def give() -> None:
            with suppress(OSError, ValueError, LookupError):  # nobody is told anything
                answers.append(ask(self.socket, wanted))

        if step is not None:
            self.plan.write_text(json.dumps(step._asdict()))
            self.laboratory.signal(12)  # SIGUSR2
        person = threading.Thread(target=give, daemon=True)
        person.start()
        if step is None:
            time.sleep(dice.uniform(0, 0.03))
        else:
            end = time.monotonic() + 1.0
            while self.alive() and time.monotonic() < end:
                time.sleep(0.005)
        self.kill()
        person.join(20)
        return bool(answers and answers[0].get("ok"))

    def is_done(self, deed: str, wanted: Request) -> bool:
        """What the store says."""
        with closing(sqlite3.connect(self.folder / "lab.db")) as store:
            if deed == "move":
                subject = f"proposal {wanted.proposal}"
                found = "SELECT count(*) FROM audit WHERE action = 'confirm-id' AND subject = ?"
                return bool(store.execute(found, (subject,)).fetchone()[0])
            found = "SELECT count(*) FROM audit JOIN report ON subject = 'report ' || report.id WHERE action = ? AND specimen = ?"
            return bool(store.execute(found, (wanted.command, wanted.specimen)).fetchone()[0])

    # -- the judgement -------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Lets everything leave, and holds what the hospital believes against what it must."""
        with closing(Reader(f"sqlite:///{self.folder}/lab.db")) as reader:
            try:
                wait_until(lambda: not reader.moved() and not reader.queued(), SETTLED_S, "everything is settled")
            except AssertionError as error:
                self.score.problems.append(f"stuck: {error}")
        believed: dict[str, str] = {}
        contents: dict[str, bytes] = {}
        told: defaultdict[Said, set[str]] = defaultdict(set)
        for control_id, message in self.hospital.got():
            if contents.setdefault(control_id, message) != message:
                self.score.against("doubled", f"other bytes under {control_id}")
            for specimen, value, status in _said(message):
                told[specimen, value, status].add(control_id)
                believed[specimen] = "" if status == "W" else value
        self.score.taken = len(contents)
        for (specimen, value, status), ids in told.items():
            if len(ids) > 1:
                self.score.against("doubled", f"{value} {status} of {specimen} under {len(ids)} ids")
        for specimen, value in self.expected.items():
            has = believed.get(specimen, "")
            if has and not value:
                self.score.against("misfiled", f"the hospital has {has} of {specimen}, whose id was corrected")
            elif has != value:
                self.score.against("lost", f"the hospital has {has or 'nothing'} of {specimen}, and must have {value}")
        said = self.laboratory.log.read_bytes()
        self.score.problems += [f"the daemon's log says {word.decode()}" for word in OURS if word in said]
        verified = self.laboratory.run("verify")
        if verified.returncode:
            self.score.problems.append(f"verify: {verified.stdout[-300:]}")

    def has_heard(self, specimen: str) -> bool:
        """Whether the hospital got something of a specimen."""
        return any(f"|{specimen}|".encode() in message for _, message in self.hospital.got())

    def close(self) -> None:
        """Ends everything."""
        if self.alive():
            self.kill()
        self.hospital.stop()


def _said(message: bytes) -> list[Said]:
    """The results of a message."""
    rows = [line.split("|") for line in message.decode().split("\r")]
    [specimen] = {row[3] for row in rows if row[0] == "OBR"}
    return [(specimen, row[5], row[11]) for row in rows if row[0] == "OBX"]


def on_a_bench(chunk: Any, folder: Path, rounds: Any) -> dict[str, Any]:
    """Rounds of a chunk on one laboratory; ``rounds`` gives the chance of each."""
    bench = Bench(folder, chunk.fault)
    happened: Counter[str] = Counter()
    try:
        for number in chunk.numbers:
            happened[bench.round(number, rounds(chunk.seed, chunk.name, number))] += 1
        bench.judge()
    except Exception as error:
        bench.score.problems.append(f"stuck: {type(error).__name__}: {str(error)[-600:]}")
    finally:
        bench.close()
    return {**asdict(bench.score), "listening": bench.listening, "happened": happened}
